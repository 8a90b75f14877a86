// Unigram language model tokenization (Kudo 2018, arXiv:1804.10959): the segmentation of highest total score,
// by Viterbi over byte positions. Characters without piece cost 10 more than the worst piece.
#pragma once

#include <array>

#include "text/byte_trie.h"
#include "text/model.h"
#include "text/spm_bpe.h"

namespace cairn::text {

struct UnigramPiece {
  std::string_view text;
  double score = 0;
  PieceType type = PieceType::normal;
};

class Unigram final : public Model {
 public:
  // The two references differ in precision (SentencePiece adds in single) and in user-defined pieces.
  enum class Reference { sentencepiece, huggingface };
  // Throws Error(invalid_file) for a score that is not a number, a piece past 1024 bytes, or an unknown id
  // outside the vocabulary. unk -1: characters without piece throw Error(invalid_argument), as in the
  // reference.
  Unigram(const std::vector<UnigramPiece>& pieces, TokenId unk, bool byte_fallback, Reference,
          const std::string& file);
  void encode(std::string_view word, std::vector<TokenId>& out) const override;

 private:
  struct Node {
    double score = 0;
    int32_t start = -1;
    TokenId id = -1;
  };
  void best_path(std::string_view word, std::vector<Node>& ends) const;
  void emit_unknown(std::string_view text, std::vector<TokenId>& out) const;

  TokenId unk_;
  bool byte_fallback_;
  Reference reference_;
  ByteTrie trie_;
  std::vector<double> scores_;
  std::vector<bool> user_defined_;
  double unk_score_ = 0, max_score_ = 0;
  std::array<TokenId, 256> byte_ids_{};
};

}  // namespace cairn::text
