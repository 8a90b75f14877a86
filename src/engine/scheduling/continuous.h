// Continuous batching (Orca, Yu et al., OSDI 2022) with chunked prompts: the policy a server runs by default.
#pragma once

#include <map>
#include <unordered_map>

#include "engine/scheduling/policy.h"
#include "engine/scheduling/step_time.h"

namespace cairn::engine {

// Every step extends all running answers by a token, and what is left of the step's time reads prompts.
//
// Prompts. While anything decodes, prompts get the most tokens with which the step is expected to end within
// max_token_gap. So that answers cannot shut prompts out, these get a quarter of the time that the answers
// alone need in any case, and what fills a tile of rows within kSlack of all that, or else kLeastChunk
// tokens. When nothing decodes they get all that a step can hold.
//
// Who reads. Higher priority first. Within a priority the client that was served least, by a virtual token
// counter (Sheng et al., Fairness in Serving Large Language Models, OSDI 2024): a computed prompt token
// counts 1, an answer token 2, reused and recomputed ones nothing. A client that comes back from idle is
// lifted to the least counter of those that were busy, so that idling saves nothing up. Within a client: in
// the order of arrival.
//
// Admission. While a whole prompt's pages are free beyond those promised to prompts being read and a reserve:
// a fiftieth of the pool and one page for each answer that may still need one. The next in line waits rather
// than be overtaken by what is smaller, or it would never start.
//
// Priorities are strict: one that waits preempts lower ones when that makes room for it. So that nothing
// starves, of every priority that has waited `ageing` seconds without an admission one sequence is raised to
// the highest priority present, and so is every running sequence that got no token for so long; they stay
// there.
//
// Pages running out. The running sequence of the lowest priority, among equals the latest, gives its pages
// back and is computed again later; the first in that order never does, so something always gets on. A
// sequence that was preempted k times comes back only when 4 x 2^k pages for its growth are free too, or all
// that it can ever need: it is preempted some log2(pages of its answer) times at most, and not in every step.
class Continuous final : public Policy {
 public:
  explicit Continuous(const PolicyOptions& options) : options_(options) {}
  std::string_view name() const override { return "continuous"; }
  // O(n log n) in the sequences that run and the clients and priorities that wait, O(n) in those that wait.
  void plan(const SchedulerState&, StepPlan&) override;
  void measured(const StepShape& shape, double seconds) override { times_.add(shape, seconds); }
  double predict(const StepShape& shape) const override { return times_.predict(shape); }

  static constexpr int64_t kTileRows = 16;
  static constexpr int64_t kLeastChunk = 4;
  static constexpr double kSlack = 1.25;  // times the budget, for a whole tile
  static constexpr double kLeastShare = 1.25;
  static constexpr double kAnswerWeight = 2;

 private:
  struct Client {
    double served = 0;  // the virtual token counter
    int64_t seen = -1;  // the last plan in which it ran or waited
    int group = -1;     // the first of its groups in this plan
  };
  // What is remembered of a sequence from its first share on, preemptions included.
  struct Tracked {
    int64_t level = 0;    // its priority, or what it was raised to
    double progress = 0;  // when it last got tokens
    int64_t last = 0;     // the plan in which it did
    int64_t counted = 0;  // tokens that its client was charged for, or spared
    int64_t seen = 0;     // the last plan in which it was there
    int64_t answered = 0;
  };
  // Prompts of one client and level in the order in which they are read: a list of entries through next_.
  struct Group {
    int64_t level = 0;     // its place in the order
    int64_t becomes = 0;   // the level of what is admitted from it
    int64_t priority = 0;  // where it waits, for passed_over_
    Client* client = nullptr;
    int first = -1, last = -1;
    int next_of_client = -1;
  };
  struct Running {
    const SequenceView* view;
    Tracked* tracked;
    Client* client;
    bool stays;
  };
  struct Room {  // what is left of the step and of the pool
    int64_t tokens = 0, sequences = 0, pages = 0;
    int64_t promised = 0;  // pages for the rest of the prompts being read
    int64_t reserve = 0;   // pages that admission leaves
    int64_t running = 0;
    bool bounded = false;        // something decodes
    int64_t answer_context = 0;  // of what decodes in this step
    bool shortage = false;       // answers found no pages
    StepShape shape;
  };
  struct PassedOver {
    double since = 0;
    int64_t seen = 0;
  };

  Client& client_of(uint64_t id);
  Group& group_of(int64_t level, Client&);
  void forget_the_gone(const SchedulerState&);
  void gather_running(const SchedulerState&);
  void gather_waiting(const SchedulerState&);
  void learn_from_the_ended();
  int64_t growth(const SchedulerState&, const SequenceView&) const;
  void raise_what_starves(const SchedulerState&);
  void queue_prompts(const SchedulerState&);
  const SequenceView& view(const SchedulerState&, int entry) const;
  Room room(const SchedulerState&) const;
  static bool worse(const Running&, const Running&);
  std::vector<Running*> worst_first();
  void preempt(Running&, const SchedulerState&, Room&, StepPlan&);
  void make_room_for_priority(const SchedulerState&, Room&, StepPlan&);
  void share_decodes(const SchedulerState&, Room&, StepPlan&);
  void share_prompts(const SchedulerState&, Room&, StepPlan&);
  void share_by_force(const SchedulerState&, Room&, StepPlan&);
  bool fits(const SchedulerState&, const SequenceView&, const Room&) const;
  int64_t chunk(const Room&, const SequenceView&, int64_t most) const;
  void give(const SequenceView&, Tracked&, Client&, int64_t tokens, const SchedulerState&, Room&, StepPlan&);

  PolicyOptions options_;
  StepTimeModel times_;
  std::unordered_map<uint64_t, Client> clients_;
  std::unordered_map<SequenceId, Tracked> tracked_;
  std::map<int64_t, PassedOver> passed_over_;  // by the level at which something waits
  double floor_ = 0;  // the least counter of the clients that were busy in the last plan
  int64_t plans_ = 0, ended_ = 0;
  double usual_answer_ = 0;      // tokens, of the latest 50 or so that ended
  std::vector<SequenceId> ran_;  // after the last plan

  // Of the plan being made; kept for their memory.
  std::vector<Running> running_;
  std::vector<Group> groups_;
  std::vector<int> next_;  // by entry: the running ones, then the waiting ones; -1 ends a list
  int64_t top_ = 0;        // the highest level present
};

}  // namespace cairn::engine
