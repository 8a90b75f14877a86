#include "text/answer/reasoning_budget.h"

#include <limits>

namespace cairn::text {

ReasoningBudget::ReasoningBudget(const Tokenizer& tokenizer, const ReasoningLimit& limit, TokenMask* inner)
    : inner_(inner),
      decoder_(tokenizer, false),
      parser_(limit.format, limit.prompt_tail, nullptr, true, false),
      left_(limit.tokens),
      end_(tokenizer.encode(limit.format.reasoning_end_text(), {.add_special = false})) {
  watching_ = !end_.empty();
}

void ReasoningBudget::apply(std::span<float> logits) {
  if (!watching_ || left_ > 0 || !parser_.in_reasoning()) {
    if (inner_) inner_->apply(logits);
    return;
  }
  const auto only = size_t(end_[forced_]);
  for (size_t i = 0; i < logits.size(); ++i)
    if (i != only) logits[i] = -std::numeric_limits<float>::infinity();
}

void ReasoningBudget::accept(TokenId token) {
  if (inner_) inner_->accept(token);
  if (!watching_) return;
  if (left_ <= 0 && parser_.in_reasoning() && ++forced_ == end_.size()) {
    watching_ = false;
    return;
  }
  const bool before = parser_.in_reasoning();
  (void)parser_.add(decoder_.add(token));
  if (before || parser_.in_reasoning()) --left_;
}

}  // namespace cairn::text
