// The order of work that every tokenizer here follows: added tokens are cut out of the text, the rest is
// normalised, split into words and given to the model; then the post-processor adds what the model's training
// expects.
#pragma once

#include <memory>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/scanner.h"

namespace cairn::text {

struct Pipeline {
  std::unique_ptr<Normalizer> normalizer;  // may be null
  // At most one of the two. With a scanner words go to a byte-level model as they are; without either the
  // whole text is one word.
  std::unique_ptr<Scanner> scanner;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  std::unique_ptr<Model> model;  // never null
  AddedTokens added;
  PostProcessor post;
  DecoderChain decoder;
  SpecialTokens special;
  std::optional<std::string> chat_template;
  bool normalizer_takes_invalid_utf8 = false;  // else broken sequences become U+FFFD before everything
};

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(Pipeline);
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions&) const override;
  std::unique_ptr<DecodeStream> decode_stream(bool skip_special) const override;
  std::string piece(TokenId) const override;
  int32_t vocabulary_size() const override { return size_; }
  std::optional<TokenId> token_to_id(std::string_view) const override;
  bool is_special(TokenId) const override;
  const SpecialTokens& special() const override { return pipeline_.special; }
  std::optional<std::string> chat_template() const override { return pipeline_.chat_template; }

  // The token's text as decoding takes it; nullopt when there is no such id.
  std::optional<std::string> token_text(TokenId) const;
  bool is_special_text(std::string_view) const;

 private:
  void encode_text(std::string_view text, bool at_start, std::vector<TokenId>& out) const;
  Pipeline pipeline_;
  int32_t size_ = 0;
};

}  // namespace cairn::text
