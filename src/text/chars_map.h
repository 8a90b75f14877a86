// SentencePiece's precompiled normalisation rules: u32 bytes of trie, a double-array trie (Darts-clone
// layout), and the replacement strings, each ended by a zero byte. Untrusted: every step is bounds-checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::text {

class CharsMap {
 public:
  CharsMap() = default;
  CharsMap(std::string_view blob, const std::string& place);  // throws Error(invalid_file)

  struct Rule {
    size_t length = 0;  // bytes of text that it replaces
    std::string_view replacement;
  };
  bool empty() const { return units_.empty(); }
  std::optional<Rule> longest(std::string_view text) const;   // what SentencePiece applies
  std::optional<Rule> shortest(std::string_view text) const;  // what Hugging Face's Precompiled applies

 private:
  template <typename F>
  void prefixes(std::string_view text, F&& f) const;
  std::string_view replacement(uint32_t offset) const;

  std::vector<uint32_t> units_;
  std::string strings_;
};

}  // namespace cairn::text
