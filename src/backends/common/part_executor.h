// An executor of one part of a program (program/parts.h): it stops between stages, where rows of values are
// handed to it and taken from it.
#pragma once

#include <cstddef>

#include "backends/common/executor.h"

namespace cairn::backends {

class PartExecutor : public Executor {
 public:
  // Takes the step's tokens. The sequences and the trace outlive the step; what the trace gets is numbered as
  // the part's instructions are. run() is for whole programs.
  virtual void begin_stages(std::span<const SequenceStep>, program::Trace* trace = nullptr) = 0;
  // Every stage once, in order. The stage that computes the scores returns them.
  virtual StepResult run_stage(size_t stage) = 0;
  // Rows of a value of the coming stage's `in`, and of the last stage's `out`, f32 or i32 as the value says,
  // in the order of the step's sequences. What is taken stays until the next call.
  virtual void hand_in(program::Value, const std::byte* rows) = 0;
  virtual const std::byte* hand_out(program::Value) = 0;
};

}  // namespace cairn::backends
