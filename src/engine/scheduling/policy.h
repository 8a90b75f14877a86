// Which tokens of which sequences run in the next step: the scheduler seam.
//
// A policy sees numbers only. It has no model, no clock and no thread of its own, so the same object decides
// in the server (serving/service.h) and in the simulator (scheduling/simulate.h), which replays recorded step
// times. The simplest one, which the others are tested against, is scheduling/first_come.h.
//
// One model of progress for prompts and answers (as vLLM's version 1 scheduler): a sequence knows `known`
// tokens, its prompt and what it has answered so far, and has computed the keys and values of the first
// `computed` of them. known - computed tokens are left; when none is left after a step, that step's scores
// give the next token, and known grows by one. Reading a prompt, decoding and recomputing what a preemption
// threw away are the same thing with other numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::engine {

using SequenceId = uint64_t;

struct SequenceView {
  SequenceId id = 0;
  uint64_t client = 0;  // whose: fairness is between clients
  int priority = 0;     // higher first
  double arrival = 0;   // seconds, on the clock of SchedulerState::now
  int64_t known = 0, computed = 0;
  int64_t prompt_tokens = 0;  // known - prompt_tokens have been answered
  int64_t max_tokens = 0;     // the most that known can become
  int64_t pages = 0;          // held
  // Of them, those that another running sequence holds too: preempting this one does not free them.
  int64_t shared_pages = 0;
  int64_t reusable = 0;  // waiting: tokens of it that the prefix cache holds now
  int preemptions = 0;

  int64_t left() const { return known - computed; }
  bool decoding() const { return known > prompt_tokens && left() == 1; }
};

struct SchedulerState {
  double now = 0;
  std::span<const SequenceView> running;  // hold pages; in the order in which they were admitted
  std::span<const SequenceView> waiting;  // hold none; in the order in which they arrived
  int64_t free_pages = 0;                 // at once, those of the prefix cache that nobody uses included
  int64_t total_pages = 0;
  int page_tokens = 1;
  int64_t step_tokens = 0;     // the most tokens of a step
  int64_t step_sequences = 0;  // the most sequences of a step
  int64_t max_running = 0;     // the most sequences that hold pages
};

struct StepPlan {
  struct Share {
    SequenceId id = 0;
    int64_t tokens = 0;  // 1 to left()
  };
  // Preempted first: their pages are free for the shares. Then shares in the order of the step's rows; a
  // waiting sequence that has one is admitted.
  std::vector<SequenceId> preempt;
  std::vector<Share> shares;
  void clear() { preempt.clear(), shares.clear(); }
};

// A step as cost models see it.
struct StepShape {
  int64_t decode_rows = 0;    // sequences that extend an answer by one token
  int64_t prompt_tokens = 0;  // all other rows
  int64_t context = 0;        // tokens that the rows' attention reads, summed over sequences
  // Rows times the keys each sees, over prompt rows: what attention over prompts costs.
  int64_t prompt_pairs = 0;

  // Counts `tokens` more of s, which go after `from` computed or reused ones.
  void add(const SequenceView& s, int64_t from, int64_t tokens) {
    context += from + tokens;
    if (s.decoding()) {
      ++decode_rows;
    } else {
      prompt_tokens += tokens;
      prompt_pairs += from * tokens + tokens * (tokens + 1) / 2;
    }
  }
  void add(const SequenceView& s, int64_t tokens) {
    add(s, s.computed > s.reusable ? s.computed : s.reusable, tokens);
  }
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  // Fills a cleared plan. An empty plan while something waits or runs means: nothing can run until a sequence
  // ends; with nothing running that is a broken policy.
  virtual void plan(const SchedulerState&, StepPlan&) = 0;
  // After the step: what it was and how long it took.
  virtual void measured(const StepShape&, double seconds) { (void)seconds; }
  // Seconds that the policy expects of a step; 0: it has no idea. For /metrics, which shows both.
  virtual double predict(const StepShape&) const { return 0; }
};

struct PolicyOptions {
  double max_token_gap = 0.1;  // seconds between two tokens of a running answer that prompts may cause
  double ageing = 10;          // seconds after which what is passed over for higher priorities gets its turn
};

// By name: "first-come", "continuous", "flover". Throws Error(invalid_argument) listing the names.
std::unique_ptr<Policy> make_policy(std::string_view name, const PolicyOptions&);

}  // namespace cairn::engine
