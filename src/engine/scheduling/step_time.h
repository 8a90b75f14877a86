// How long a step takes on this machine, learned from the steps it has done.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <tuple>

#include "engine/scheduling/policy.h"

namespace cairn::engine {

// seconds = speed x (c0 + c1 decode_rows + c2 prompt_tokens + c3 context + c4 prompt_pairs + c5 [rows > 1] +
// c6 min(rows, 16)), rows being both kinds, no c below 0. One row alone takes kernels that only stream
// weights, and up to a tile of 16 rows the streaming still hides a part of the arithmetic: with the last two
// terms, 415 steps of a 1B model on two cores are explained to 4 % in the median, without them to 11 %.
//
// The c are a non-negative least squares fit of relative errors over the latest few steps of every size that
// was ever seen, so that an hour of decoding does not wipe out what is known of prompts. A step that was
// disturbed counts little: its relative error cannot pass 1, and errors above a third weigh less. `speed`
// follows the machine as a whole: when decode steps take twice as long because another program computes, so
// will prompts, long before one was measured.
class StepTimeModel {
 public:
  void add(const StepShape&, double seconds);  // ignores what is not a positive finite time

  // The most likely seconds; 0 before the first step.
  double predict(const StepShape&) const;

  // What the step will hardly pass: the prediction and twice the usual error. Infinite for steps with more
  // than twice the prompt tokens of any measured step, and more than kFirstTokens: a slope that was measured
  // over a few tokens is not to be trusted for hundreds.
  double upper(const StepShape&) const;
  static constexpr int64_t kFirstTokens = 32;

  int64_t steps() const { return steps_; }
  double spread() const { return spread_; }  // mean |log(measured / predicted)| of the latest steps

 private:
  static constexpr int kTerms = 7;
  using Terms = std::array<double, kTerms>;
  static Terms terms(const StepShape&);

  struct Sample {
    Terms x;
    double seconds;  // at speed 1
  };
  struct Bin {  // steps of about one size
    std::deque<Sample> samples;
    int64_t last = 0;
  };
  void fit();

  std::map<std::tuple<int, int, int>, Bin> bins_;  // by powers of two of rows, prompt tokens and context
  Terms c_{};
  double speed_ = 1, spread_ = 0.1;
  int64_t steps_ = 0, largest_prompt_ = 0;
};

}  // namespace cairn::engine
