// The vocabulary as a trie over the bytes of its tokens, laid out in preorder so that a walk is one pass over
// an array and a branch that does not fit is one jump.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::text::constrain {

class TokenTrie {
 public:
  struct Node {
    uint32_t after;  // the next node that is not below this one
    uint32_t
        first_token;  // in tokens(): those that are exactly this text; they end where the next node's begin
    uint8_t byte;
    uint8_t depth;  // of at most 255
  };
  // Special tokens and tokens without text are left out: no text of theirs may stand for them. So are those
  // of more than 255 bytes.
  TokenTrie(const Tokenizer&, int32_t vocabulary_size);

  // nodes()[0] is the root; one more past the last closes the token ranges.
  std::span<const Node> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }
  std::span<const TokenId> tokens_at(uint32_t node) const {
    return {tokens_.data() + nodes_[node].first_token,
            nodes_[node + 1].first_token - nodes_[node].first_token};
  }
  // All tokens below the node and at it.
  std::span<const TokenId> tokens_below(uint32_t node) const {
    return {tokens_.data() + nodes_[node].first_token,
            nodes_[nodes_[node].after].first_token - nodes_[node].first_token};
  }
  std::span<const TokenId> tokens() const { return tokens_; }  // by their texts, ascending
  uint32_t longest() const { return longest_; }                // bytes of the longest token
  // The text of a token that the trie holds; empty for all others.
  const std::string& text(TokenId id) const { return texts_[size_t(id)]; }
  int32_t vocabulary_size() const { return int32_t(texts_.size()); }
  size_t words() const { return (texts_.size() + 31) / 32; }  // of a bit mask

 private:
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;
  std::vector<std::string> texts_;
  uint32_t longest_ = 0;
};

}  // namespace cairn::text::constrain
