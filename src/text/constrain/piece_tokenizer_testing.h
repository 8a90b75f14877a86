// For tests and fuzzers: a tokenizer that is given its pieces.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::text::testing {

// Tokens by their pieces; the last ones are special: "<|end|>" ends a turn.
class PieceTokenizer : public Tokenizer {
 public:
  PieceTokenizer(std::vector<std::string> pieces, std::vector<std::string> special) {
    first_special_ = TokenId(pieces.size());
    pieces_ = std::move(pieces);
    pieces_.insert(pieces_.end(), special.begin(), special.end());
    pieces_.push_back("<|end|>");
    special_.end_of_turn = {TokenId(pieces_.size()) - 1};
    special_.eos = special_.end_of_turn[0];
    for (size_t i = 0; i < pieces_.size(); ++i) ids_.try_emplace(pieces_[i], TokenId(i));
  }
  // All single bytes, and these.
  static PieceTokenizer bytes_and(const std::vector<std::string>& more,
                                  std::vector<std::string> special = {}) {
    std::vector<std::string> pieces;
    for (int b = 0; b < 256; ++b) pieces.push_back(std::string(1, char(b)));
    pieces.insert(pieces.end(), more.begin(), more.end());
    return {std::move(pieces), std::move(special)};
  }

  // Longest match.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions&) const override {
    std::vector<TokenId> ids;
    while (!text.empty()) {
      size_t length = std::min<size_t>(text.size(), 32);
      auto found = ids_.end();
      for (; length > 0; --length) {
        found = ids_.find(std::string(text.substr(0, length)));
        if (found != ids_.end() && found->second < first_special_) break;
      }
      if (length == 0) return ids;
      ids.push_back(found->second);
      text.remove_prefix(length);
    }
    return ids;
  }
  std::unique_ptr<DecodeStream> decode_stream(bool) const override { return nullptr; }
  std::string piece(TokenId id) const override { return pieces_[size_t(id)]; }
  int32_t vocabulary_size() const override { return int32_t(pieces_.size()); }
  std::optional<TokenId> token_to_id(std::string_view text) const override {
    const auto found = ids_.find(std::string(text));
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  bool is_special(TokenId id) const override { return id >= first_special_; }
  const SpecialTokens& special() const override { return special_; }
  std::optional<std::string> chat_template() const override { return std::nullopt; }
  TokenId end() const { return special_.end_of_turn[0]; }

 private:
  TokenId first_special_ = 0;
  std::vector<std::string> pieces_;
  std::map<std::string, TokenId> ids_;
  SpecialTokens special_;
};

}  // namespace cairn::text::testing
