// One answer in the making: from a step's scores to a token, to text, to where it ends.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/sampler.h"
#include "text/tokenizer.h"

namespace cairn::engine {

enum class Finish { end_of_turn, stop_string, length, cancelled };
const char* to_string(Finish);

struct AnswerLimits {
  int64_t max_tokens = 0;   // at least 1
  bool ignore_end = false;  // go on after an end-of-turn token
  // Special tokens whose text belongs to the answer (tool calls, reasoning); others give none.
  std::vector<text::TokenId> visible_special = {};
};

class AnswerWriter {
 public:
  // stream: which of the n answers. The tokenizer must outlive the writer. Throws what
  // SamplingParams::validate throws.
  AnswerWriter(const text::Tokenizer&, const text::SamplingParams&, int32_t vocabulary_size, int stream,
               AnswerLimits);

  void prompt(std::span<const text::TokenId> tokens) { sampler_.prompt(tokens); }
  void set_mask(text::TokenMask* mask) { sampler_.set_mask(mask); }

  struct Step {
    std::optional<text::TokenId> token;  // absent: the turn ended
    std::string text;                    // what became certain; at the end, all that was held back too
    std::optional<Finish> finish;
  };
  // Draws the next token from the scores, which are overwritten. Throws as Sampler::sample.
  Step next(std::span<float> logits);
  // The same when somebody else draws: with what (Sampler::next_draw), and which token that was.
  std::optional<text::Draw> next_draw(int ahead) const { return sampler_.next_draw(ahead); }
  Step next_drawn(int32_t token);
  // The text that was held back, when the answer is cut from outside.
  std::string cut();

  const std::vector<text::TokenId>& tokens() const { return tokens_; }  // without the end-of-turn token
  // Of the last token; empty unless asked for.
  const std::vector<text::TokenLogprob>& top_logprobs() const { return sampler_.top_logprobs(); }

 private:
  Step go_on(text::TokenId);
  std::string decode(text::TokenId);

  const text::Tokenizer& tokenizer_;
  AnswerLimits limits_;
  text::Sampler sampler_;
  text::StreamDecoder decoder_;
  text::StopMatcher stops_;
  std::vector<text::TokenId> tokens_;
};

}  // namespace cairn::engine
