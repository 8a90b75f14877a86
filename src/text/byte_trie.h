// A trie over bytes for longest-match and all-prefix searches. Edges live in one hash table.
#pragma once

#include <string_view>
#include <vector>

#include "text/string_map.h"

namespace cairn::text {

class ByteTrie {
 public:
  static constexpr int32_t kRoot = 0;

  // The first value given to a key stays. Values are >= 0; the empty key is ignored.
  void insert(std::string_view key, int32_t value) {
    if (key.empty()) return;
    int32_t node = kRoot;
    for (char c : key) {
      int32_t child = step(node, uint8_t(c));
      if (child < 0) {
        child = int32_t(values_.size());
        values_.push_back(-1);
        edges_.insert(node, uint8_t(c), {0, child});
      }
      node = child;
    }
    first_byte_[uint8_t(key[0])] = true;
    if (values_[size_t(node)] < 0) values_[size_t(node)] = value;
  }

  bool empty() const { return values_.size() == 1; }
  bool starts(char byte) const { return first_byte_[uint8_t(byte)]; }
  int32_t step(int32_t node, uint8_t byte) const {
    return edges_.find(node, byte).result;
  }                                                                    // -1: no such edge
  int32_t value(int32_t node) const { return values_[size_t(node)]; }  // -1: no key ends here

  // Calls f(length, value) for every key that text starts with, shortest first.
  template <typename F>
  void prefixes(std::string_view text, F&& f) const {
    int32_t node = kRoot;
    for (size_t i = 0; i < text.size(); ++i) {
      node = step(node, uint8_t(text[i]));
      if (node < 0) return;
      if (values_[size_t(node)] >= 0) f(i + 1, values_[size_t(node)]);
    }
  }

  struct Match {
    size_t length = 0;  // 0: none
    int32_t value = -1;
  };
  Match longest(std::string_view text) const {
    Match match;
    if (text.empty() || !starts(text[0])) return match;
    prefixes(text, [&](size_t length, int32_t value) { match = {length, value}; });
    return match;
  }

 private:
  PairMap edges_;
  std::vector<int32_t> values_ = {-1};
  bool first_byte_[256] = {};
};

}  // namespace cairn::text
