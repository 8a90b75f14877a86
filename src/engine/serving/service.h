// Many requests, one engine: a thread that asks the scheduling policy what to run, runs it, draws tokens and
// tells the listeners. Everything else may be called from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/histogram.h"
#include "base/workers.h"
#include "engine/engine.h"
#include "engine/scheduling/policy.h"
#include "engine/serving/request.h"
#include "kv/page_store.h"
#include "kv/prefix_tree.h"
#include "kv/spill.h"

namespace cairn::engine {

struct ServiceOptions {
  std::string policy = "continuous";
  PolicyOptions scheduling;
  int64_t max_running = 0;     // sequences that hold pages; 0: as many as a step has rows of scores
  int64_t max_waiting = 4096;  // sequences; more are refused
  bool reuse_prefixes = true;  // keep computed pages for prompts that begin alike
  // Where computed pages are kept across restarts; an empty folder: nowhere. They hold the prompts' tokens.
  kv::PageStoreOptions store = {};
  // Whether tokens are drawn where the scores are and steps enqueued ahead of them; absent: where the
  // engine's steps overlap with the host's work. The answers are the same.
  std::optional<bool> overlap = {};
  // Host memory for the pages of preempted answers. For pages in a GPU's memory; 0: they are computed again.
  uint64_t spill_bytes = 0;
};

struct ServiceStats {
  int64_t running = 0, waiting = 0;
  int64_t pages = 0, free_pages = 0;  // free: nobody's, and not even kept for reuse
  kv::PrefixTreeStats prefixes;
  kv::PageStoreStats store;
  int64_t spill_pages = 0, spilled_pages = 0;  // room for pages in host memory; pages there
  uint64_t spilled_tokens = 0, restored_tokens = 0;
  uint64_t prompt_tokens = 0, reused_tokens = 0, computed_tokens = 0, answer_tokens = 0;
  uint64_t steps = 0, preemptions = 0, refused = 0;
  uint64_t ended[4] = {}, failed = 0;  // by Finish
  Histogram step, predicted_step;      // seconds of steps, and what the policy had expected
  Histogram queued, first_token, between_tokens, whole;
  // Seconds of the engine thread in all: in the steps themselves (`step`), drawing tokens and telling
  // listeners, and in what lies between (planning, admission, giving back).
  double drawing = 0, planning = 0;
  backends::StepTimes device;   // of the steps: where the host's time went, for a GPU
  double step_running_for = 0;  // seconds since the step that runs now began; 0: none does
  double since_step = 0;        // seconds since the last one ended
  // Seconds since the engine's thread last came round: every second when it has nothing to do.
  double since_seen = 0;
};

// An answer that has not ended.
struct RequestView {
  std::string id, client;  // as in GenerateRequest
  std::string_view state;  // "prefill", "decode", "loading" (from disk), "waiting", "preempted", "spilled"
  int answer = 0, priority = 0;
  int64_t prompt_tokens = 0, computed_tokens = 0, answer_tokens = 0, pages = 0;
  int preemptions = 0;
  double age = 0;  // seconds since it was submitted
};

class Service {
 public:
  // The engine and tokenizer must outlive the service, and nobody else may run steps meanwhile.
  Service(Engine&, const text::Tokenizer&, const ServiceOptions& = {});
  ~Service();  // cancels what runs

  // Throws Error(invalid_argument) for a request that could never run, with both numbers where there are two,
  // and Error(overloaded) when too many wait or the service is closing. The listener lives until its last
  // on_end.
  RequestId submit(GenerateRequest, std::shared_ptr<Listener>);
  // Ends all answers of a request within one step. Unknown and ended ones are ignored.
  void cancel(RequestId);

  // Refuses new requests; returns when the running ones have ended, or after `seconds` cancels the rest.
  // True: all ended by themselves.
  bool drain(double seconds);

  ServiceStats stats() const;
  // What has not ended, running ones first, at most 256. Made between two steps and only on demand: this is
  // what an earlier call asked for.
  std::vector<RequestView> requests() const;
  bool stores() const { return store_ != nullptr; }  // pages on disk
  Engine& engine() { return engine_; }
  const text::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  struct Job;
  struct Sequence;
  struct Loading;

  void check(const GenerateRequest&) const;
  void loop();
  void take_inbox();
  void enqueue(std::unique_ptr<Sequence>);
  void plan();
  void apply_preemptions();
  std::span<const text::TokenId> findable(const Sequence&) const;
  bool admit(std::unique_ptr<Sequence>&);
  void spill(Sequence&);
  bool restore_spilled(Sequence&);
  int64_t reusable(Sequence&, bool soon);
  int64_t shared_pages(const Sequence&) const;
  bool load_stored(std::unique_ptr<Sequence>&, kv::PrefixTree::Match&);
  void take_loaded();
  void remember(Sequence&, bool ends);
  void release(Sequence&);
  int64_t pages_at_hand() const;
  void fill_step();
  struct Step {
    std::vector<Sequence*> sequences;
    std::vector<backends::SequenceStep> shares;
    std::vector<std::optional<text::Draw>> draws;  // absent: the scores are wanted, or none
    bool all_drawn = false;                        // every share gives one token
    StepShape shape;
  };
  void run_steps();
  bool enqueue_step(Step&, int ahead);
  bool fill_next();
  void describe_draws(Step&, int ahead) const;
  void finish_step(const backends::StepResult&, double began, bool failed);
  void advance(Sequence&, const float* hidden, std::span<float> scores, int64_t rows,
               std::optional<int32_t> drawn);
  void count_step(double seconds, double expected);
  void retire();
  void publish();
  void list();
  void end(Sequence&);
  SequenceView view(const Sequence&) const;

  Engine& engine_;
  const text::Tokenizer& tokenizer_;
  ServiceOptions options_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<kv::PrefixTree> prefixes_;  // null: nothing is reused
  std::unique_ptr<kv::PageStore> store_;      // null: nothing is kept on disk
  std::unique_ptr<kv::Spill> spill_;          // null: what is preempted is computed again
  bool rows_alike_ = false;                   // rows of prompts and answers have the same bits
  int64_t decode_rows_ = 0;                   // the most of a step
  bool length_matters_ = false;               // keys depend on how long the sequence may become

  Workers masks_;  // compute grammars' masks while steps run; sequences wait for theirs before they go

  // Of the engine thread.
  std::vector<std::unique_ptr<Sequence>> running_, waiting_;
  std::vector<Loading> loading_;  // their pages come from the disk
  int64_t pages_taken_ = 0;       // by the shares of the step that is being filled
  std::vector<SequenceView> running_views_, waiting_views_;
  StepPlan plan_;
  // The step: sequences, their rows, and where in the result each one's scores begin.
  Step step_, next_;  // next_: enqueued behind step_, and empty otherwise
  std::vector<size_t> first_row_;
  SequenceId next_sequence_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::vector<std::shared_ptr<Job>> submitted_;
  std::vector<RequestId> cancelled_;
  RequestId next_request_ = 0;
  int64_t alive_ = 0;  // answers not ended
  bool closing_ = false, stop_ = false, loaded_ = false;

  mutable std::mutex stats_mutex_;
  ServiceStats stats_;
  std::vector<RequestView> requests_;
  mutable std::atomic<bool> list_wanted_{false};
  double drawing_ = 0, planning_ = 0;  // see ServiceStats
  double step_computed_ = 0;           // when the step's scores had come
  std::atomic<double> seen_{0};
  std::atomic<double> step_began_{0}, step_ended_{0};  // seconds of the steady clock; began 0: none runs

  std::thread thread_;
};

}  // namespace cairn::engine
