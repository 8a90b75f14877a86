#include "engine/scheduling/simulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <sstream>
#include <unordered_map>
#include <unordered_set>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::engine {
namespace {

using Clock = std::chrono::steady_clock;

// The state of one run. Sequence ids are indices of arrivals.
class Run {
 public:
  Run(Policy& policy, const Machine& machine, const std::vector<Arrival>& arrivals, const SimulateOptions& o)
      : policy_(policy), machine_(machine), arrivals_(arrivals), o_(o), free_(o.pages) {
    result_.requests.resize(arrivals.size());
    computed_once_.resize(arrivals.size());
  }

  SimulateResult run() {
    while (result_.broken.empty() && (o_.until <= 0 || now_ < o_.until)) {
      arrive();
      if (running_.empty() && waiting_.empty()) {
        if (next_ == arrivals_.size()) break;
        now_ = arrivals_[next_].at;
        continue;
      }
      step();
    }
    finish();
    return std::move(result_);
  }

 private:
  void arrive() {
    for (; next_ < arrivals_.size() && arrivals_[next_].at <= now_; ++next_) {
      const Arrival& a = arrivals_[next_];
      SequenceView s;
      s.id = next_, s.client = a.client, s.priority = a.priority, s.arrival = a.at;
      s.known = s.prompt_tokens = a.prompt_tokens;
      s.max_tokens = std::max(a.max_tokens, a.prompt_tokens + a.answer_tokens);
      waiting_.push_back(s);
    }
    if (o_.ideal_prefix_cache)
      for (auto& s : waiting_) s.reusable = reusable(s);
  }

  // A block is found by itself and all before it: Arrival::content numbers it so.
  int64_t reusable(const SequenceView& s) const {
    const auto& content = arrivals_[s.id].content;
    size_t blocks = 0;
    while (blocks < content.size() && cached_.count(content[blocks])) ++blocks;
    return std::min(int64_t(blocks) * o_.content_block, s.prompt_tokens - 1);
  }

  template <typename... Args>
  void broken(fmt::format_string<Args...> text, Args&&... args) {
    if (result_.broken.empty())
      result_.broken = fmt::format("at {:.3f} s: {}", now_, fmt::format(text, std::forward<Args>(args)...));
  }

  void step() {
    SchedulerState state;
    state.now = now_;
    state.running = running_, state.waiting = waiting_;
    state.free_pages = free_, state.total_pages = o_.pages, state.page_tokens = o_.page_tokens;
    state.step_tokens = o_.step_tokens, state.step_sequences = o_.step_sequences;
    state.max_running = o_.max_running;
    plan_.clear();
    const auto start = Clock::now();
    policy_.plan(state, plan_);
    result_.plan_seconds += std::chrono::duration<double>(Clock::now() - start).count();

    index();
    preempt();
    if (!result_.broken.empty()) return;
    if (plan_.shares.empty()) {
      if (running_.empty() && plan_.preempt.empty())
        return broken("nothing runs and nothing of {} is admitted", waiting_.size());
      if (plan_.preempt.empty()) return broken("none of {} running sequences gets on", running_.size());
      return;
    }
    const StepShape shape = take();
    if (!result_.broken.empty()) return;
    const double seconds = machine_(shape);
    const int64_t used = o_.pages - free_;
    page_seconds_ += double(used) * seconds;
    result_.pages_most = std::max(result_.pages_most, used);
    now_ += seconds;
    ++result_.steps;
    policy_.measured(shape, seconds);
    advance(shape);
  }

  void index() {
    where_.clear();
    for (size_t i = 0; i < running_.size(); ++i) where_[running_[i].id] = {true, i};
    for (size_t i = 0; i < waiting_.size(); ++i) where_[waiting_[i].id] = {false, i};
  }

  void preempt() {
    if (plan_.preempt.empty()) return;
    std::unordered_set<SequenceId> gone;
    for (const SequenceId id : plan_.preempt) {
      const auto w = where_.find(id);
      if (w == where_.end() || !w->second.first || !gone.insert(id).second)
        return broken("sequence {} is preempted, which does not run", id);
      SequenceView s = running_[w->second.second];
      free_ += s.pages;
      s.pages = 0, s.computed = 0, s.reusable = 0;
      ++s.preemptions, ++result_.preemptions, ++result_.requests[id].preemptions;
      const auto place =
          std::lower_bound(waiting_.begin(), waiting_.end(), s, [](const auto& a, const auto& b) {
            return a.arrival < b.arrival || (a.arrival == b.arrival && a.id < b.id);
          });
      waiting_.insert(place, s);
    }
    std::erase_if(running_, [&](const auto& s) { return gone.count(s.id) > 0; });
    index();
    for (const auto& share : plan_.shares)
      if (gone.count(share.id)) broken("sequence {} is preempted and has a share", share.id);
  }

  // Checks the shares and takes their pages.
  StepShape take() {
    StepShape shape;
    int64_t tokens = 0;
    std::unordered_set<SequenceId> seen;
    for (const auto& share : plan_.shares) {
      const auto w = where_.find(share.id);
      if (w == where_.end() || !seen.insert(share.id).second) {
        broken("sequence {} has a share and is not there, or has two", share.id);
        return shape;
      }
      const bool admitted = !w->second.first;
      auto& s = admitted ? waiting_[w->second.second] : running_[w->second.second];
      if (admitted) {
        s.computed = std::max(s.computed, s.reusable);
        result_.requests[s.id].reused += s.reusable;
        computed_once_[s.id] = std::max(computed_once_[s.id], s.reusable);
        s.reusable = 0;
      }
      if (share.tokens < 1 || share.tokens > s.left()) {
        broken("sequence {} gets {} tokens, {} are left", s.id, share.tokens, s.left());
        return shape;
      }
      shape.add(s, share.tokens);
      tokens += share.tokens;
      const int64_t pages = ceil_div(s.computed + share.tokens, o_.page_tokens);
      if (pages > s.pages) free_ -= pages - s.pages, s.pages = pages;
      if (admitted) running_.push_back(s);
    }
    if (running_.size() > size_t(o_.max_running))
      broken("{} sequences run, {} may", running_.size(), o_.max_running);
    std::erase_if(waiting_, [&](const auto& s) { return seen.count(s.id) > 0; });
    if (tokens > o_.step_tokens) broken("a step of {} tokens, {} fit", tokens, o_.step_tokens);
    if (int64_t(seen.size()) > o_.step_sequences)
      broken("a step of {} sequences, {} fit", seen.size(), o_.step_sequences);
    if (free_ < 0) broken("{} more pages are used than there are", -free_);
    index();
    return shape;
  }

  void advance(const StepShape& shape) {
    bool ended = false;
    for (const auto& share : plan_.shares) {
      auto& s = running_[where_[share.id].second];
      auto& r = result_.requests[s.id];
      const int64_t end = s.computed + share.tokens;
      const int64_t first_time = std::max<int64_t>(0, end - std::max(computed_once_[s.id], s.computed));
      result_.recomputed += share.tokens - first_time;
      const int64_t answers = std::max<int64_t>(0, end - std::max(end - first_time, s.prompt_tokens));
      result_.answer_tokens += answers, result_.prompt_tokens += first_time - answers;
      computed_once_[s.id] = std::max(computed_once_[s.id], end);
      s.computed = end;
      r.computed += share.tokens;
      if (o_.ideal_prefix_cache)
        for (int64_t b = 0; b < s.computed / o_.content_block && b < int64_t(arrivals_[s.id].content.size());
             ++b)
          cached_.insert(arrivals_[s.id].content[size_t(b)]);
      if (s.left() > 0) continue;
      if (arrivals_[s.id].answer_tokens > 0) {
        ++s.known, ++r.answered;
        if (r.answered == 1) {
          r.first = now_;
        } else {
          gaps_.push_back(now_ - r.last);
          if (shape.prompt_tokens > 0)
            result_.worst_gap_beside_prompts = std::max(result_.worst_gap_beside_prompts, now_ - r.last);
        }
        r.last = now_;
      }
      if (r.answered < arrivals_[s.id].answer_tokens) continue;
      r.ended = ended = true;
      free_ += s.pages;
      s.pages = -1;
    }
    if (ended) std::erase_if(running_, [](const auto& s) { return s.pages < 0; });
  }

  void finish() {
    std::vector<double> first, per_token;
    for (size_t i = 0; i < arrivals_.size(); ++i) {
      const auto& r = result_.requests[i];
      if (r.answered > 0) first.push_back(r.first - arrivals_[i].at);
      if (r.ended && r.answered > 1) per_token.push_back((r.last - r.first) / double(r.answered - 1));
    }
    result_.first_token = spread(std::move(first));
    result_.per_token = spread(std::move(per_token));
    result_.gap = spread(std::move(gaps_));
    result_.seconds = now_;
    result_.pages_mean = now_ > 0 ? page_seconds_ / now_ : 0;
    if (result_.broken.empty() && o_.until <= 0 && free_ != o_.pages)
      broken("{} pages were not given back", o_.pages - free_);
  }

  Policy& policy_;
  const Machine& machine_;
  const std::vector<Arrival>& arrivals_;
  const SimulateOptions& o_;
  SimulateResult result_;
  StepPlan plan_;
  std::vector<SequenceView> running_, waiting_;
  std::unordered_map<SequenceId, std::pair<bool, size_t>> where_;  // running, place
  std::unordered_set<int64_t> cached_;
  std::vector<int64_t> computed_once_;  // per arrival
  std::vector<double> gaps_;
  size_t next_ = 0;
  int64_t free_;
  double now_ = 0, page_seconds_ = 0;
};

}  // namespace

std::string to_line(const RecordedStep& s) {
  return fmt::format("{} {} {} {} {:.9g}", s.shape.decode_rows, s.shape.prompt_tokens, s.shape.context,
                     s.shape.prompt_pairs, s.seconds);
}

std::vector<RecordedStep> read_steps(std::istream& in, const std::string& name) {
  std::vector<RecordedStep> steps;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    RecordedStep s;
    std::istringstream fields(line);
    std::string rest;
    if (!(fields >> s.shape.decode_rows >> s.shape.prompt_tokens >> s.shape.context >> s.shape.prompt_pairs >>
          s.seconds) ||
        fields >> rest || s.shape.decode_rows < 0 || s.shape.prompt_tokens < 0 || s.shape.context < 0 ||
        s.shape.prompt_pairs < 0 || !(s.seconds > 0))
      fail(ErrorKind::invalid_file,
           "{}, line {}: \"{}\" is no recorded step: decode rows, prompt tokens, context, prompt pairs (0 or "
           "more) and seconds (above 0)",
           name, number, line.substr(0, 100));
    steps.push_back(s);
  }
  return steps;
}

Machine recorded_machine(const std::vector<RecordedStep>& steps) {
  auto times = std::make_shared<StepTimeModel>();
  for (const auto& s : steps) times->add(s.shape, s.seconds);
  if (times->steps() < 1) fail(ErrorKind::invalid_argument, "a machine needs at least one recorded step");
  return [times](const StepShape& shape) { return std::max(1e-6, times->predict(shape)); };
}

Spread spread(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double part) {
    return values[size_t(std::ceil(part * double(values.size()))) - 1];  // nearest rank
  };
  return {std::accumulate(values.begin(), values.end(), 0.0) / double(values.size()), at(0.5), at(0.9),
          at(0.99), values.back()};
}

SimulateResult simulate(Policy& policy, const Machine& machine, const std::vector<Arrival>& arrivals,
                        const SimulateOptions& options) {
  return Run(policy, machine, arrivals, options).run();
}

}  // namespace cairn::engine
