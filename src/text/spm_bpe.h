// SentencePiece's BPE (github.com/google/sentencepiece, bpe_model.cc; Llama 1 and 2, Mistral, Gemma 1 to 3):
// neighbours merge when their joined text is a piece, highest score first. Words are whole normalised texts,
// with U+2581 for spaces.
#pragma once

#include <array>

#include "text/byte_trie.h"
#include "text/merge.h"
#include "text/model.h"

namespace cairn::text {

enum class PieceType : uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Piece {
  std::string_view text;
  float score = 0;
  PieceType type = PieceType::normal;
};

class SpmBpe final : public Model {
 public:
  // unk: -1 when there is none; then characters without piece and without byte fallback vanish.
  SpmBpe(const std::vector<Piece>& pieces, TokenId unk, bool byte_fallback, const std::string& file);
  void encode(std::string_view word, std::vector<TokenId>& out) const override;

 private:
  TokenId unk_;
  bool byte_fallback_;
  bool any_unused_ = false;
  StringMap pieces_;            // what merging may produce: normal, user-defined and unused pieces
  std::vector<int32_t> ranks_;  // by id: 0 is the highest score
  std::vector<PieceType> types_;
  ByteTrie user_defined_;  // kept whole
  std::array<TokenId, 256> byte_ids_{};
};

}  // namespace cairn::text
