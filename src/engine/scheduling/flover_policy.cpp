#include "engine/scheduling/flover_policy.h"

#include <algorithm>

#include "base/checked.h"

namespace cairn::engine {

void FloverPolicy::plan(const SchedulerState& state, StepPlan& plan) {
  std::vector<SequenceId> answers;
  for (const auto& s : state.running)
    if (s.decoding()) answers.push_back(s.id);
  if (turn_was_last_ || answers.empty())
    share_prompt(state, answers.empty() ? state.step_tokens : kPiece, plan);
  turn_was_last_ = plan.shares.empty();
  if (!turn_was_last_) return;
  const auto count = std::min({answers.size(), size_t(state.step_tokens), size_t(state.step_sequences)});
  if (first_ >= answers.size()) first_ = 0;
  for (size_t i = 0; i < count; ++i) plan.shares.push_back({answers[(first_ + i) % answers.size()], 1});
  first_ += count;
}

void FloverPolicy::share_prompt(const SchedulerState& state, int64_t most, StepPlan& plan) {
  most = std::min(most, state.step_tokens);
  int64_t free = state.free_pages;
  const auto slot = [&](const SequenceView& s) {
    return ceil_div(std::max(s.max_tokens, s.known), state.page_tokens);
  };
  for (const auto& s : state.running) free -= std::max<int64_t>(0, slot(s) - s.pages);
  for (const auto& s : state.running)
    if (!s.decoding() && s.left() > 0) return plan.shares.push_back({s.id, std::min(most, s.left())});
  if (state.waiting.empty() || int64_t(state.running.size()) >= state.max_running) return;
  const auto& s = state.waiting.front();
  if (slot(s) <= free)
    plan.shares.push_back({s.id, std::min(most, s.known - std::max(s.computed, s.reusable))});
}

}  // namespace cairn::engine
