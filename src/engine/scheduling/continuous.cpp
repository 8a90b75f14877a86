#include "engine/scheduling/continuous.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

#include "base/checked.h"

namespace cairn::engine {
namespace {

int64_t from_of(const SequenceView& s) { return std::max(s.computed, s.reusable); }

// Pages for all that is known of a sequence and its next token.
int64_t pages_of_known(const SchedulerState& state, const SequenceView& s) {
  return ceil_div(std::min(s.known + 1, std::max(s.known, s.max_tokens)), state.page_tokens);
}

int64_t pages_more(const SchedulerState& state, const SequenceView& s, int64_t tokens) {
  return std::max<int64_t>(0, ceil_div(from_of(s) + tokens, state.page_tokens) - s.pages);
}

}  // namespace

void Continuous::plan(const SchedulerState& state, StepPlan& plan) {
  forget_the_gone(state);
  ++plans_;
  gather_running(state);
  gather_waiting(state);
  learn_from_the_ended();
  raise_what_starves(state);
  queue_prompts(state);
  Room room = this->room(state);
  make_room_for_priority(state, room, plan);
  share_decodes(state, room, plan);
  share_prompts(state, room, plan);
  if (plan.shares.empty() && !running_.empty()) share_by_force(state, room, plan);

  double least = std::numeric_limits<double>::infinity();
  for (const auto& [id, client] : clients_)
    if (client.seen == plans_) least = std::min(least, client.served);
  if (std::isfinite(least)) floor_ = std::max(floor_, least);
}

void Continuous::forget_the_gone(const SchedulerState& state) {
  // Idle clients at or below the floor would be lifted to it when they come back, as new ones are.
  const size_t present = state.running.size() + state.waiting.size();
  if (clients_.size() > 64 + 2 * present)
    std::erase_if(clients_,
                  [&](const auto& c) { return c.second.seen != plans_ && c.second.served <= floor_; });
  if (tracked_.size() > 64 + 2 * present)
    std::erase_if(tracked_, [&](const auto& t) { return t.second.seen != plans_; });
}

Continuous::Client& Continuous::client_of(uint64_t id) {
  Client& client = clients_[id];
  if (client.seen == plans_) return client;
  if (client.seen != plans_ - 1) client.served = std::max(client.served, floor_);
  client.seen = plans_, client.group = -1;
  return client;
}

Continuous::Group& Continuous::group_of(int64_t level, Client& client) {
  for (int g = client.group; g >= 0; g = groups_[size_t(g)].next_of_client)
    if (groups_[size_t(g)].level == level) return groups_[size_t(g)];
  groups_.push_back({level, level, level, &client, -1, -1, client.group});
  client.group = int(groups_.size()) - 1;
  return groups_.back();
}

const SequenceView& Continuous::view(const SchedulerState& state, int entry) const {
  const size_t e = size_t(entry), running = state.running.size();
  return e < running ? state.running[e] : state.waiting[e - running];
}

void Continuous::gather_running(const SchedulerState& state) {
  running_.clear(), groups_.clear();
  next_.assign(state.running.size() + state.waiting.size(), -1);
  top_ = std::numeric_limits<int64_t>::min();
  for (const auto& s : state.running) {
    Tracked& t =
        tracked_.try_emplace(s.id, Tracked{s.priority, state.now, plans_, s.computed, 0}).first->second;
    t.seen = plans_, t.answered = s.known - s.prompt_tokens;
    running_.push_back({&s, &t, &client_of(s.client), true});
    top_ = std::max(top_, t.level);
  }
}

void Continuous::gather_waiting(const SchedulerState& state) {
  Client* client = nullptr;
  Group* group = nullptr;
  uint64_t id = 0;
  for (size_t i = 0; i < state.waiting.size(); ++i) {
    const auto& s = state.waiting[i];
    int64_t level = s.priority;
    if (s.preemptions > 0)
      if (const auto t = tracked_.find(s.id); t != tracked_.end())
        level = t->second.level, t->second.seen = plans_;
    if (!client || id != s.client) client = &client_of(id = s.client), group = nullptr;
    if (!group || group->level != level) {
      const size_t count = groups_.size();
      group = &group_of(level, *client);
      if (groups_.size() > count)
        passed_over_.try_emplace(level, PassedOver{state.now, 0}).first->second.seen = plans_;
    }
    const int entry = int(state.running.size() + i);
    (group->last < 0 ? group->first : next_[size_t(group->last)]) = entry;
    group->last = entry;
    top_ = std::max(top_, level);
  }
  std::erase_if(passed_over_, [&](const auto& p) { return p.second.seen != plans_; });
}

void Continuous::raise_what_starves(const SchedulerState& state) {
  for (auto& r : running_)
    if (r.tracked->level < top_ && state.now - r.tracked->progress >= options_.ageing)
      r.tracked->level = top_;
  for (const auto& [level, passed] : passed_over_) {
    if (level >= top_ || state.now - passed.since < options_.ageing) continue;
    Group* chosen = nullptr;
    for (auto& g : groups_)
      if (g.priority == level && g.first >= 0 && (!chosen || g.client->served < chosen->client->served))
        chosen = &g;
    if (!chosen) continue;
    Group raised = *chosen;  // its first alone, before all others
    chosen->first = next_[size_t(raised.first)];
    if (chosen->first < 0) chosen->last = -1;
    next_[size_t(raised.first)] = -1;
    raised.last = raised.first;
    raised.level = top_ + 1, raised.becomes = top_, raised.next_of_client = -1;
    groups_.push_back(raised);  // in no client's list: nothing is to be appended to it
  }
}

void Continuous::learn_from_the_ended() {
  for (const SequenceId id : ran_)
    if (const auto t = tracked_.find(id); t != tracked_.end() && t->second.seen != plans_) {
      if (t->second.answered > 0) {
        ++ended_;
        usual_answer_ += (double(t->second.answered) - usual_answer_) / double(std::min<int64_t>(ended_, 50));
      }
      tracked_.erase(t);
    }
  ran_.clear();
  for (const auto& r : running_) ran_.push_back(r.view->id);
}

// Pages by which an answer may still grow, so far as admission looks ahead: half of what is missing to the
// usual length, because others will end meanwhile, and at least one.
int64_t Continuous::growth(const SchedulerState& state, const SequenceView& s) const {
  const int64_t held = std::max(s.pages, pages_of_known(state, s));
  const int64_t most = ceil_div(s.max_tokens, state.page_tokens) - held;
  const double missing = usual_answer_ - double(s.known - s.prompt_tokens);
  const int64_t likely = std::max<int64_t>(1, int64_t(missing / 2 / state.page_tokens));
  return std::clamp<int64_t>(likely, 0, std::max<int64_t>(0, most));
}

// Prompts being read go before those that wait.
void Continuous::queue_prompts(const SchedulerState&) {
  for (size_t i = running_.size(); i-- > 0;) {
    auto& r = running_[i];
    if (r.view->decoding() || r.view->left() < 1) continue;
    Group& group = group_of(r.tracked->level, *r.client);
    next_[i] = group.first;
    group.first = int(i);
    if (group.last < 0) group.last = int(i);
  }
}

Continuous::Room Continuous::room(const SchedulerState& state) const {
  Room room;
  room.tokens = state.step_tokens, room.sequences = state.step_sequences;
  room.pages = state.free_pages;
  room.running = int64_t(running_.size());
  room.reserve = state.total_pages / 50;
  for (const auto& r : running_) {
    const auto& s = *r.view;
    room.reserve += growth(state, s);
    if (s.decoding()) {
      room.bounded = true;
    } else {
      room.promised += std::max<int64_t>(0, pages_of_known(state, s) - s.pages);
    }
  }
  return room;
}

bool Continuous::worse(const Running& a, const Running& b) {
  if (a.tracked->level != b.tracked->level) return a.tracked->level < b.tracked->level;
  if (a.view->arrival != b.view->arrival) return a.view->arrival > b.view->arrival;
  return a.view->id > b.view->id;
}

std::vector<Continuous::Running*> Continuous::worst_first() {
  std::vector<Running*> order;
  for (auto& r : running_)
    if (r.stays) order.push_back(&r);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return worse(*a, *b); });
  return order;
}

void Continuous::preempt(Running& r, const SchedulerState& state, Room& room, StepPlan& plan) {
  const auto& s = *r.view;
  r.stays = false;
  plan.preempt.push_back(s.id);
  room.pages += s.pages - s.shared_pages;
  --room.running;
  room.reserve -= growth(state, s);
  if (!s.decoding()) room.promised -= std::max<int64_t>(0, pages_of_known(state, s) - s.pages);
}

bool Continuous::fits(const SchedulerState& state, const SequenceView& s, const Room& room) const {
  const int64_t known = pages_of_known(state, s);
  if (room.running < 1) return known <= room.pages;
  int64_t more = growth(state, s);
  if (s.preemptions > 0)
    more = std::max(more, std::min(std::max<int64_t>(0, ceil_div(s.max_tokens, state.page_tokens) - known),
                                   int64_t{4} << std::min(s.preemptions, 24)));
  return room.running < state.max_running && known + more + room.reserve <= room.pages - room.promised;
}

void Continuous::make_room_for_priority(const SchedulerState& state, Room& room, StepPlan& plan) {
  const Group* head = nullptr;  // of those that wait
  for (const auto& g : groups_) {
    if (g.first < int(running_.size())) continue;  // it reads something already, or is empty
    if (!head || g.level > head->level || (g.level == head->level && g.client->served < head->client->served))
      head = &g;
  }
  if (!head) return;
  for (const auto& r : running_)
    if (!r.view->decoding() && r.tracked->level >= head->becomes) return;  // it has to wait for that anyway
  const auto& s = view(state, head->first);
  if (fits(state, s, room)) return;
  auto order = worst_first();
  std::erase_if(order, [&](const Running* r) { return r->tracked->level >= head->becomes; });
  Room after = room;
  StepPlan preempted;
  size_t count = 0;
  while (count < order.size() && !fits(state, s, after)) preempt(*order[count++], state, after, preempted);
  if (fits(state, s, after)) {
    room = after;
    plan.preempt = std::move(preempted.preempt);
  } else {
    for (size_t i = 0; i < count; ++i) order[i]->stays = true;
  }
}

void Continuous::give(const SequenceView& s, Tracked& t, Client& client, int64_t tokens,
                      const SchedulerState& state, Room& room, StepPlan& plan) {
  const int64_t from = from_of(s), end = from + tokens;
  plan.shares.push_back({s.id, tokens});
  room.shape.add(s, from, tokens);
  room.tokens -= tokens, --room.sequences;
  room.pages -= pages_more(state, s, tokens);
  t.progress = state.now, t.last = plans_;
  t.counted = std::max(t.counted, from);  // what is computed and was not counted was reused
  if (end > t.counted) {
    const int64_t answered = std::max<int64_t>(0, end - std::max(t.counted, s.prompt_tokens));
    client.served += double(end - t.counted - answered) + kAnswerWeight * double(answered);
    t.counted = end;
  }
}

void Continuous::share_decodes(const SchedulerState& state, Room& room, StepPlan& plan) {
  std::vector<Running*> rows;
  int64_t missing = 0;
  for (auto& r : running_)
    if (r.stays && r.view->decoding()) rows.push_back(&r), missing += pages_more(state, *r.view, 1);
  if (missing > room.pages) {
    auto order = worst_first();
    for (size_t i = 0; i + 1 < order.size() && missing > room.pages; ++i) {
      if (order[i]->view->decoding()) missing -= pages_more(state, *order[i]->view, 1);
      preempt(*order[i], state, room, plan);
    }
    std::erase_if(rows, [](const Running* r) { return !r->stays; });
    room.shortage = true;
  }
  // Prompts keep a row when there are more answers than a step can extend.
  int64_t most = std::min(room.tokens, room.sequences);
  if (most > 1 && !groups_.empty()) --most;
  if (int64_t(rows.size()) > most) {
    std::stable_sort(rows.begin(), rows.end(), [](const Running* a, const Running* b) {
      if (a->tracked->level != b->tracked->level) return a->tracked->level > b->tracked->level;
      return a->tracked->last < b->tracked->last;
    });
    rows.resize(size_t(most));
  }
  for (Running* r : rows)
    if (pages_more(state, *r->view, 1) <= room.pages)
      give(*r->view, *r->tracked, *r->client, 1, state, room, plan);
  room.answer_context = room.shape.context;
}

int64_t Continuous::chunk(const Room& room, const SequenceView& s, int64_t most) const {
  if (!room.bounded) return most;
  const StepShape answers{room.shape.decode_rows, 0, room.answer_context, 0};
  const double budget = std::max(options_.max_token_gap, kLeastShare * times_.predict(answers));
  const auto in_time = [&](int64_t tokens, double slack = 1) {
    StepShape shape = room.shape;
    shape.add(s, tokens);
    return times_.upper(shape) <= slack * budget;
  };
  if (in_time(most)) return most;
  int64_t low = 0, high = most;  // low is in time, high is not
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (in_time(middle) ? low : high) = middle;
  }
  // Kernels compute whole tiles of rows, those of the answers among them: one row more costs another tile.
  const int64_t fill = kTileRows - (room.shape.decode_rows + room.shape.prompt_tokens) % kTileRows;
  if (low >= fill) return low - (low - fill) % kTileRows;
  if (room.shape.prompt_tokens > 0) return 0;
  // Something is read in any case: what fills the tile when that passes the budget by little.
  if (in_time(std::min(most, fill), kSlack)) return std::min(most, fill);
  return std::min(most, std::max(low, kLeastChunk));
}

void Continuous::share_prompts(const SchedulerState& state, Room& room, StepPlan& plan) {
  struct Next {
    int64_t level;
    double served, arrival;
    int group;
    bool operator<(const Next& o) const {  // the largest is next
      if (level != o.level) return level < o.level;
      if (served != o.served) return served > o.served;
      return arrival > o.arrival;
    }
  };
  const auto next_of = [&](int group) {
    const Group& g = groups_[size_t(group)];
    return Next{g.level, g.client->served, view(state, g.first).arrival, group};
  };
  std::vector<Next> first;
  for (size_t g = 0; g < groups_.size(); ++g)
    if (groups_[g].first >= 0) first.push_back(next_of(int(g)));
  std::priority_queue<Next> queue(std::less<Next>(), std::move(first));
  bool closed = room.shortage;  // nothing more is admitted

  while (room.tokens > 0 && room.sequences > 0 && !queue.empty()) {
    const Next next = queue.top();
    queue.pop();
    Group& group = groups_[size_t(next.group)];
    if (next.served != group.client->served) {  // it was served at another level meanwhile
      queue.push(next_of(next.group));
      continue;
    }
    const int entry = group.first;
    const auto& s = view(state, entry);
    Running* const running = entry < int(running_.size()) ? &running_[size_t(entry)] : nullptr;
    if (!running) {
      if (closed || !fits(state, s, room)) {
        closed = true;
        continue;  // and with it all of the group, of which the rest waits too
      }
    }
    if (!running || running->stays) {
      int64_t most = std::min(s.known - from_of(s), room.tokens);
      most = std::min(most, (s.pages + room.pages) * state.page_tokens - from_of(s));
      if (most > 0) {
        const int64_t tokens = chunk(room, s, most);
        if (tokens < 1) return;  // the time is up
        Tracked* tracked = running ? running->tracked : nullptr;
        if (!running) {
          tracked = &tracked_.try_emplace(s.id).first->second;
          tracked->level = group.becomes, tracked->seen = plans_;
          room.promised += pages_of_known(state, s);
          room.reserve += growth(state, s);
          ++room.running;
          ran_.push_back(s.id);
          passed_over_[group.priority].since = state.now;
        }
        room.promised -= pages_more(state, s, tokens);
        give(s, *tracked, *group.client, tokens, state, room, plan);
        if (tokens < most) return;
      }
    }
    group.first = next_[size_t(entry)];
    if (group.first >= 0) queue.push(next_of(next.group));
  }
}

// Prompts being read hold all pages and nothing answers: only shared or miscounted pages lead here.
void Continuous::share_by_force(const SchedulerState& state, Room& room, StepPlan& plan) {
  const auto order = worst_first();
  if (order.empty()) return;
  Running& best = *order.back();
  const auto fitting = [&] {
    return std::min({best.view->left(), room.tokens,
                     (best.view->pages + room.pages) * state.page_tokens - best.view->computed});
  };
  for (size_t i = 0; i + 1 < order.size() && fitting() < 1; ++i) preempt(*order[i], state, room, plan);
  if (fitting() > 0 && room.sequences > 0)
    give(*best.view, *best.tracked, *best.client, fitting(), state, room, plan);
}

}  // namespace cairn::engine
