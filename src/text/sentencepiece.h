// A SentencePiece model's parts, whether they come from tokenizer.model or from GGUF, and the pipeline they
// make.
#pragma once

#include <string>
#include <vector>

#include "text/normalizer.h"
#include "text/pipeline_tokenizer.h"
#include "text/spm_bpe.h"

namespace cairn::text {

struct SentencePieceModel {
  enum class Kind { unigram, bpe };
  Kind kind = Kind::unigram;
  struct Entry {
    std::string text;
    float score = 0;
    PieceType type = PieceType::normal;
  };
  std::vector<Entry> pieces;
  bool byte_fallback = false;
  SpmRules rules;                              // user_defined is filled from the pieces
  std::string unk_surface = " \xe2\x81\x87 ";  // what an unknown token decodes to
};

// Control pieces become special tokens, found in text when parse_special is on. The post-processor stays
// empty.
Pipeline sentencepiece_pipeline(SentencePieceModel, const std::string& file);

// tokenizer.model (sentencepiece_model.proto).
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& file);

}  // namespace cairn::text
