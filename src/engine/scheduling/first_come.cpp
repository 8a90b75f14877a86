#include "engine/scheduling/first_come.h"

#include <algorithm>

#include "base/checked.h"

namespace cairn::engine {

void FirstCome::plan(const SchedulerState& state, StepPlan& plan) {
  int64_t tokens = state.step_tokens, sequences = state.step_sequences, pages = state.free_pages;
  const auto more_pages = [&](const SequenceView& s, int64_t count) {
    return ceil_div(s.computed + count, state.page_tokens) - s.pages;
  };
  // Sequences before `end` stay; from the back they give their pages to those in front.
  size_t end = state.running.size();
  for (size_t i = 0; i < end && tokens > 0 && sequences > 0; ++i) {
    const auto& s = state.running[i];
    const int64_t count = std::min(s.left(), tokens);
    if (count < 1) continue;
    while (more_pages(s, count) > pages && end > i + 1) {
      const auto& last = state.running[--end];
      pages += last.pages - last.shared_pages;
      plan.preempt.push_back(last.id);
    }
    if (more_pages(s, count) > pages) {  // it is alone and does not fit: it gives way to nobody
      const int64_t fitting = (s.pages + pages) * state.page_tokens - s.computed;
      if (fitting < 1) break;
      plan.shares.push_back({s.id, std::min(count, fitting)});
      pages = 0;
      break;
    }
    pages -= more_pages(s, count);
    plan.shares.push_back({s.id, count});
    tokens -= count, --sequences;
  }
  if (!plan.preempt.empty()) return;  // what was thrown out must not come back in the same step
  int64_t running = int64_t(state.running.size());
  for (const auto& s : state.waiting) {
    if (tokens < 1 || sequences < 1 || running >= state.max_running) break;
    if (more_pages(s, s.known - s.computed) > pages) break;
    pages -= more_pages(s, s.known - s.computed);
    const int64_t count = std::min(s.known - std::max(s.computed, s.reusable), tokens);
    plan.shares.push_back({s.id, count});
    tokens -= count, --sequences, ++running;
  }
}

}  // namespace cairn::engine
