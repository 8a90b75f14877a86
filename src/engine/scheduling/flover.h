// Flover (2023, arXiv 2305.13484, HiPC 2023): one generation loop that never ends computes a token for every
// live request, whatever its age; prompts are read aside and join at the next token; slots of fixed length
// lie side by side and are kept so by few copies.
//
// Use it for many short answers of even length: a slot takes the memory of the longest request it may hold.
// For everything else the policy "continuous" over pages is the better one (bench/results/flover.md).
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/answer_writer.h"
#include "engine/engine.h"
#include "engine/scheduling/step_time.h"
#include "kv/slots.h"
#include "text/sampler.h"

namespace cairn::engine {

struct FloverOptions {
  int slots = 32;
  int64_t slot_tokens = 512;  // prompt and answer of a request
  size_t most_waiting = 64;   // more are refused
  // Where prompts are read. aside: by a thread and an executor of its own, which share the KV pool; the CPU
  // only, and with its own copy of the packed weights unless these are mapped from a file. between: on the
  // generation loop's threads, a piece between two tokens, where a second thread would only take the first
  // one's core.
  enum class Prefill : uint8_t { aside, between };
  Prefill prefill = Prefill::aside;
  int prefill_threads = 1;     // aside
  int64_t prefill_piece = 64;  // tokens; a cancelled prompt ends within one piece
  // Holes are slots that ended between others. The paper's loop computes their rows for nothing, because its
  // batch is the range from the lowest to the highest live slot. Here a step is a list of sequences, and
  // holes cost nothing unless this asks for the paper's loop.
  bool compute_holes = false;
  // automatic: when the holes are expected to cost more than the copies; never, then, unless compute_holes.
  enum class Shuffle : uint8_t { automatic, always, never };
  Shuffle shuffle = Shuffle::automatic;
};

struct FloverRequest {
  std::vector<int32_t> prompt;
  text::SamplingParams sampling;
  int64_t max_tokens = 0;     // of the answer, at least 1
  std::vector<int32_t> ends;  // tokens that end the turn; they are not told
  // From the loop's thread, between two tokens: they must not block, throw or call Flover.
  std::function<void(int32_t token)> on_token;
  std::function<void(Finish, const std::string& error)> on_end;  // error: empty unless it failed (cancelled)
};

struct FloverStats {
  int live = 0, holes = 0;
  size_t waiting = 0;
  uint64_t turns = 0, rows = 0, wasted_rows = 0;  // computed ones; wasted: of holes
  uint64_t shuffles = 0, moves = 0, bytes_moved = 0;
};

class Flover {
 public:
  // The engine must outlive it, be fresh (nobody has used its KV pool) and run nothing else. Throws
  // Error(invalid_argument) when a step of the engine holds fewer rows than there are slots.
  Flover(Engine&, const FloverOptions&);
  ~Flover();  // cancels what is there

  using Id = uint64_t;
  // Throws Error(invalid_argument) naming both numbers when the request is longer than a slot, and
  // Error(overloaded) when too many wait.
  Id submit(FloverRequest);
  void cancel(Id);  // ends within one turn, or one piece of its prompt; unknown ones are ignored
  std::optional<size_t> position(Id) const;  // how many wait before it; empty: it does not wait
  void drain();                              // until nothing is left
  FloverStats stats() const;

 private:
  struct Job {
    Id id = 0;
    FloverRequest request;
    text::Sampler sampler;
    int32_t last = 0;  // the token to be computed next
    int64_t answered = 0;
    bool cancelled = false;
    std::string error = {};
    std::optional<Finish> finish = {};
    bool told = false;  // `last` was given to on_token
  };
  struct Slot {
    enum class State : uint8_t { free, reading, live, hole };
    State state = State::free;
    std::unique_ptr<Job> job;
    std::optional<kv::Sequence> cache;
  };

  void read_prompts();  // the thread aside
  void generate();      // the loop
  int choose_slot() const;
  int start_reading();     // under the lock; -1: nothing can be
  bool read_piece(Slot&);  // true: its first token is there, or it ended
  bool try_piece(Slot&);   // the same, whatever happens
  static void give_up(Job&, const std::string& error);
  static void draw(Job&, std::span<float> scores);
  static void tell(Job&);
  void join_and_cancel();
  void turn();
  void retire();
  void shuffle();
  std::pair<int, int> range() const;  // lowest and highest live slot; first > second: none
  bool worth_it(size_t moves, int64_t tokens) const;

  Engine& engine_;
  FloverOptions options_;
  kv::SlotPool slots_;
  std::unique_ptr<ThreadPool> side_pool_;
  std::unique_ptr<backends::Executor> side_;  // null: between

  mutable std::mutex mutex_;  // over all below, and the slot pool; steps run without it
  std::condition_variable queued_, joined_, idle_;
  std::deque<std::unique_ptr<Job>> waiting_;
  std::vector<Slot> table_;
  std::vector<int> joining_;      // slots whose prompts are read
  int reading_ = -1;              // between: the slot whose prompt is being read
  bool computing_holes_ = false;  // a turn runs that reads and writes slots of nobody
  bool stop_ = false;
  Id next_ = 0;
  FloverStats stats_;

  StepTimeModel times_;            // of the loop's thread alone
  double bytes_per_second_ = 4e9;  // of moves, measured
  std::thread reader_, loop_;
};

}  // namespace cairn::engine
