// The simplest policy: who came first runs first, prompts in the largest pieces that fit.
#pragma once

#include "engine/scheduling/policy.h"

namespace cairn::engine {

// Every running sequence gets what it asks for, in the order of admission; then waiting ones are admitted in
// the order of arrival while a whole prompt's pages are free. When a running sequence finds no page, the one
// that was admitted last is preempted, and computed again later.
class FirstCome final : public Policy {
 public:
  std::string_view name() const override { return "first-come"; }
  void plan(const SchedulerState&, StepPlan&) override;
};

}  // namespace cairn::engine
