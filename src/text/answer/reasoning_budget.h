// Ends a model's reasoning after so many tokens, by leaving it no other token than those of its own end tag.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer/answer_parser.h"
#include "text/sampler.h"

namespace cairn::text {

// What a request says of it.
struct ReasoningLimit {
  int64_t tokens = 0;       // of reasoning, tags included; the end tag's come on top
  AnswerFormat format;      // whose reasoning; without any nothing is limited
  std::string prompt_tail;  // see AnswerParser
};

class ReasoningBudget final : public TokenMask {
 public:
  // The tokenizer must outlive it, and so must `inner` (may be null), which binds all tokens but the end
  // tag's and hears of all.
  ReasoningBudget(const Tokenizer&, const ReasoningLimit&, TokenMask* inner);

  void apply(std::span<float> logits) override;
  void accept(TokenId) override;

 private:
  TokenMask* inner_;
  StreamDecoder decoder_;
  AnswerParser parser_;
  int64_t left_;
  bool watching_ = true;      // it may still reason
  std::vector<TokenId> end_;  // of its end tag
  size_t forced_ = 0;         // of these, once the budget is spent
};

}  // namespace cairn::text
