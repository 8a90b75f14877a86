// WordPiece (Schuster and Nakajima 2012; BERT): a word is its longest prefix in the vocabulary, then the
// longest continuation ("##ing"), and so on; a word that does not come out whole is the unknown token. And
// whole words only.
#pragma once

#include "text/byte_trie.h"
#include "text/model.h"

namespace cairn::text {

class WordPiece final : public Model {
 public:
  // unk: -1 when the vocabulary lacks it; then an unknown word throws Error(invalid_argument), as in the
  // reference.
  WordPiece(const std::vector<std::pair<TokenId, std::string_view>>& tokens, TokenId unk,
            std::string_view prefix, size_t longest_word, const std::string& file);
  void encode(std::string_view word, std::vector<TokenId>& out) const override;

 private:
  TokenId unk_;
  size_t longest_word_;  // in characters
  ByteTrie first_, continuing_;
};

class WordLevel final : public Model {
 public:
  WordLevel(const std::vector<std::pair<TokenId, std::string_view>>& tokens, TokenId unk,
            const std::string& file);
  void encode(std::string_view word, std::vector<TokenId>& out) const override;

 private:
  TokenId unk_;
};

}  // namespace cairn::text
