// What of Flover fits behind the scheduler seam: a server's policy "flover".
#pragma once

#include "engine/scheduling/policy.h"

namespace cairn::engine {

// Steps are either turns, a token of every running answer and nothing else, or a piece of one prompt and
// nothing else; while both are wanted they alternate. A sequence is admitted when all pages that it can ever
// need are free beyond those that the running ones may still take (a slot), so nothing is preempted.
// The rest of Flover, prompts on a thread aside and slots that lie side by side, needs an executor and a
// cache of its own: scheduling/flover.h.
class FloverPolicy final : public Policy {
 public:
  std::string_view name() const override { return "flover"; }
  void plan(const SchedulerState&, StepPlan&) override;

  static constexpr int64_t kPiece = 64;  // tokens of a prompt between two turns

 private:
  void share_prompt(const SchedulerState&, int64_t most, StepPlan&);
  bool turn_was_last_ = false;
  size_t first_ = 0;  // of the answers, when a step cannot hold all of them
};

}  // namespace cairn::engine
