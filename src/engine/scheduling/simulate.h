// Runs a policy without a model: a load, a machine that says how long a step takes, and a pool of pages.
#pragma once

#include <filesystem>
#include <functional>
#include <istream>
#include <string>
#include <vector>

#include "engine/scheduling/policy.h"
#include "engine/scheduling/step_time.h"

namespace cairn::engine {

// One request of a load. What it answers is known here, and not to the policy.
struct Arrival {
  double at = 0;  // seconds
  uint64_t client = 0;
  int priority = 0;
  int64_t prompt_tokens = 1;
  int64_t answer_tokens = 1;          // 0: an embedding, only a prompt
  int64_t max_tokens = 0;             // prompt and answer; 0: exactly what it will be
  std::vector<int64_t> content = {};  // by block of tokens: equal beginnings are equal prompts; may be empty
};

// Steps and their times as text: "decode_rows prompt_tokens context prompt_pairs seconds" per line; empty
// lines and lines that begin with # count for nothing.
struct RecordedStep {
  StepShape shape;
  double seconds = 0;
};
std::string to_line(const RecordedStep&);  // without a line end
// Throws Error(invalid_file) naming the line.
std::vector<RecordedStep> read_steps(std::istream&, const std::string& name);

using Machine = std::function<double(const StepShape&)>;  // seconds
// The StepTimeModel of the recorded steps. Throws Error(invalid_argument) when there are none.
Machine recorded_machine(const std::vector<RecordedStep>&);

struct SimulateOptions {
  int64_t pages = 1024;
  int page_tokens = 32;
  int64_t step_tokens = 512, step_sequences = 256, max_running = 256;
  int64_t content_block = 512;  // tokens of a block of Arrival::content
  // Every content block that was ever computed is found again at no cost in pages: what the best cache gives.
  bool ideal_prefix_cache = false;
  double until = 0;  // ends at this time; 0: when every request has ended
};

struct Spread {  // of a sample; all 0 when it is empty
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, largest = 0;
};
Spread spread(std::vector<double>);

struct SimulateResult {
  struct Request {
    double first = 0, last = 0;          // when its first and last token came; 0: not yet
    int64_t answered = 0, computed = 0;  // tokens; computed ones each time they were, reused ones never
    int64_t reused = 0;
    int preemptions = 0;
    bool ended = false;
  };
  std::vector<Request> requests;  // as the arrivals
  double seconds = 0;
  int64_t steps = 0, preemptions = 0;
  int64_t prompt_tokens = 0, answer_tokens = 0;  // computed for the first time
  int64_t recomputed = 0;                        // computed again after preemptions
  double pages_mean = 0;                         // in use, over time
  int64_t pages_most = 0;
  Spread first_token, per_token, gap;   // seconds; per_token: a request's mean after its first token
  double worst_gap_beside_prompts = 0;  // between two tokens of an answer, over steps that read prompts
  double plan_seconds = 0;              // real time inside Policy::plan
  std::string broken;                   // the first rule that the policy broke; the run ends there
};

// Arrivals in the order of their time. Stops at the first plan that passes a limit, names what is not there
// or leaves nothing to happen; such a plan is a fault of the policy, and `broken` describes it.
SimulateResult simulate(Policy&, const Machine&, const std::vector<Arrival>&, const SimulateOptions&);

}  // namespace cairn::engine
