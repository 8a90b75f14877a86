// What every backend offers the engine: steps of a ragged batch. The rows of all sequences of a step lie one
// after another.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv/page_bytes.h"
#include "kv/pool.h"
#include "program/trace.h"
#include "text/draw.h"

namespace cairn::backends {

// Which of a backend's kernels compute a row. It follows from what the row is, never from how many rows a
// step has, so that a row's bits do not depend on its company: a GPU multiplies a prompt's rows with other
// kernels (and so another order of sums) than single new tokens.
enum class RowClass : uint8_t {
  prompt,  // tokens that were given: many at once
  decode,  // tokens that extend an answer: one or a few per sequence
};

// One sequence's share of a step.
struct SequenceStep {
  kv::Sequence* sequence = nullptr;  // whose length already counts these tokens when run() sees it
  int64_t position = 0;              // of tokens[0]
  std::span<const int32_t> tokens;
  int64_t logit_rows = 0;   // scores are wanted for this many of the last tokens
  int64_t rope_length = 0;  // the whole sequence's length, for rope scalings that depend on it
  RowClass row_class = RowClass::prompt;
  // >= 0: the only token is the one that the step enqueued before this one draws from this row of its scores;
  // `tokens` holds one of any value.
  int64_t drawn_row = -1;
  // Not null: the one row of scores is not wanted, but the token that this draws from it. Read by
  // enqueue() only.
  const text::Draw* draw = nullptr;
};

struct StepResult {
  int64_t rows = 0;         // logit rows, in the order of the sequences
  float* logits = nullptr;  // [rows, vocabulary]; the caller may scribble on it until the next run
  const float* hidden =
      nullptr;  // [rows, dim]: what logits were computed from; null on a GPU for steps of class decode only
  // [rows], of rows that were drawn, whose logits are of no use: the token, or text::kNotNumbers or
  // text::kNothingAllowed.
  const int32_t* tokens = nullptr;
  int64_t vocabulary = 0, dim = 0;  // of a row of logits; of hidden
};

struct LoadProgress {
  uint64_t done_bytes = 0, total_bytes = 0;
};

// Where the host's time of steps went, in seconds, for backends whose device works beside it.
struct StepTimes {
  int64_t steps = 0;
  double prepare = 0;  // planning and copying a step's inputs
  double launch = 0;   // handing the work to the device
  double wait = 0;     // for the device
  // What the device did nothing between the end of a step and the beginning of the next; measured when asked
  // for.
  double idle = 0;
  void add(const StepTimes& o) {
    steps += o.steps, prepare += o.prepare, launch += o.launch, wait += o.wait, idle += o.idle;
  }
};

// Kernels that had to be compiled while weights were loaded, for backends that compile, and how long the
// kernels took in all, side by side with the weights.
struct KernelTimes {
  int compiled = 0;
  double seconds = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;
  // Preconditions: the step's rows are within bounds, token ids within the vocabulary, pages reserved. No
  // step is under way; drawn_row and draw are not looked at.
  virtual StepResult run(std::span<const SequenceStep>, program::Trace* trace = nullptr) = 0;

  // The same in two halves: enqueue() may return before the step is done, and finish() waits for the oldest
  // that was enqueued. At most two are under way, the second of which may go on with tokens that the first
  // draws. A result is good until the next enqueue(). What enqueue() throws was never enqueued; a step whose
  // finish() throws is over.
  virtual void enqueue(std::span<const SequenceStep>);
  virtual StepResult finish();
  // enqueue() returns before the step is done, and tokens are drawn where that costs the host nothing.
  virtual bool overlaps() const { return false; }
  // Whether enqueue() takes such a draw.
  virtual bool draws(const text::Draw&) const { return true; }

  virtual const program::Bounds& bounds() const = 0;
  virtual uint64_t scratch_bytes() const = 0;
  // Another way to the bytes of the pool's pages, for one thread; null where the pool itself holds them.
  virtual std::unique_ptr<kv::PageBytes> page_bytes() { return nullptr; }
  // The most entries that the block tables of a step's sequences may have together.
  virtual int64_t table_pages() const { return std::numeric_limits<int64_t>::max(); }
  virtual KernelTimes kernel_times() const { return {}; }
  virtual StepTimes times() const { return {}; }  // of all steps since construction, traced ones left out
  virtual void measure_idle(bool) {}

 private:
  // Of backends that compute in enqueue().
  struct UnderWay {
    StepResult result;
    std::vector<int32_t> tokens;
    std::vector<float> logits, hidden;  // once another step has been enqueued
  };
  std::vector<UnderWay> under_way_;  // oldest first
  UnderWay finished_;                // the result given last
  std::vector<int32_t> drawn_;       // by the step enqueued last
  text::Drawer drawer_;
};

}  // namespace cairn::backends
