#include "text/constrain/token_trie.h"

#include <algorithm>

namespace cairn::text::constrain {

TokenTrie::TokenTrie(const Tokenizer& tokenizer, int32_t vocabulary_size) : texts_(size_t(vocabulary_size)) {
  constexpr size_t kLongest = 255;
  for (TokenId id = 0; id < std::min(vocabulary_size, tokenizer.vocabulary_size()); ++id) {
    if (tokenizer.is_special(id)) continue;
    std::string text = tokenizer.piece(id);
    if (text.empty() || text.size() > kLongest) continue;
    longest_ = std::max(longest_, uint32_t(text.size()));
    texts_[size_t(id)] = std::move(text);
    tokens_.push_back(id);
  }
  std::sort(tokens_.begin(), tokens_.end(), [&](TokenId a, TokenId b) {
    const int order = texts_[size_t(a)].compare(texts_[size_t(b)]);
    return order != 0 ? order < 0 : a < b;
  });
  nodes_.push_back({0, 0, 0, 0});
  std::vector<uint32_t> path = {0};  // the nodes of the current text, the root first
  const auto leave_to = [&](size_t depth) {
    for (; path.size() > depth + 1; path.pop_back()) nodes_[path.back()].after = uint32_t(nodes_.size());
  };
  const std::string* before = nullptr;
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    const std::string& text = texts_[size_t(tokens_[i])];
    size_t common = 0;
    if (before) {
      const size_t limit = std::min(text.size(), before->size());
      while (common < limit && text[common] == (*before)[common]) ++common;
    }
    leave_to(common);
    for (size_t d = common; d < text.size(); ++d) {
      path.push_back(uint32_t(nodes_.size()));
      nodes_.push_back({0, i, uint8_t(text[d]), uint8_t(d + 1)});
    }
    before = &text;
  }
  leave_to(0);
  nodes_[0].after = uint32_t(nodes_.size());
  nodes_.push_back({0, uint32_t(tokens_.size()), 0, 0});
}

}  // namespace cairn::text::constrain
