#include "serve/api/engine_view.h"

#include <algorithm>
#include <chrono>

namespace cairn::serve {
namespace {

constexpr size_t kSamples = 120;

// Mean of what was added between two readings.
double mean_ms(const Histogram& before, const Histogram& now) {
  const auto count = now.count() - before.count();
  return count == 0 ? 0 : (now.sum() - before.sum()) / double(count) * 1e3;
}

int64_t pages_used(const engine::ServiceStats& s) {
  return std::max<int64_t>(0, s.pages - s.free_pages - s.prefixes.idle_pages);
}

}  // namespace

EngineView::EngineView(const Serving& serving) : serving_(serving), thread_([this] { loop(); }) {}

EngineView::~EngineView() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void EngineView::loop() {
  using Clock = std::chrono::steady_clock;
  auto before = serving_.service.stats();
  auto last = Clock::now();
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::seconds(1), [&] { return stop_; })) {
    const auto stats = serving_.service.stats();
    (void)serving_.service.requests();  // so that the next reader's is a second old at most
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - last).count();
    Sample sample;
    sample.running = stats.running;
    sample.waiting = stats.waiting;
    sample.pages_used = pages_used(stats);
    const double answers = double(stats.answer_tokens - before.answer_tokens);
    const double computed = double(stats.computed_tokens - before.computed_tokens);
    sample.answer_per_s = answers / seconds;
    sample.prompt_per_s = std::max(0.0, computed - answers) / seconds;
    sample.step_ms = mean_ms(before.step, stats.step);
    sample.predicted_ms = mean_ms(before.predicted_step, stats.predicted_step);
    samples_.push_back(sample);
    if (samples_.size() > kSamples) samples_.pop_front();
    before = stats;
    last = now;
  }
}

std::string EngineView::json() const {
  const auto s = serving_.service.stats();
  const std::lock_guard lock(mutex_);
  Json answer = {{"model", serving_.options.model_name},
                 {"device", serving_.service.engine().device_name()},
                 {"context", serving_.service.engine().context()},
                 {"running", s.running},
                 {"waiting", s.waiting}};
  answer["pages"] = {{"total", s.pages}, {"free", s.free_pages}, {"cached", s.prefixes.idle_pages}};
  if (s.spill_pages > 0) answer["pages"]["host"] = s.spilled_pages;
  if (serving_.service.stores()) answer["pages"]["disk"] = s.store.files;
  auto& requests = answer["requests"] = Json::array();
  for (const auto& r : serving_.service.requests())
    requests.push_back({{"id", r.id},
                        {"client", r.client},
                        {"state", r.state},
                        {"answer", r.answer},
                        {"priority", r.priority},
                        {"prompt_tokens", r.prompt_tokens},
                        {"computed_tokens", r.computed_tokens},
                        {"answer_tokens", r.answer_tokens},
                        {"pages", r.pages},
                        {"preemptions", r.preemptions},
                        {"age_s", r.age}});
  const Sample latest = samples_.empty() ? Sample() : samples_.back();
  answer["tokens"] = {{"prompt_per_s", latest.prompt_per_s}, {"answer_per_s", latest.answer_per_s}};
  answer["step_ms"] = {{"real", latest.step_ms}, {"predicted", latest.predicted_ms}};
  auto& history = answer["history"] = Json::array();
  for (const auto& sample : samples_)
    history.push_back({{"running", sample.running},
                       {"waiting", sample.waiting},
                       {"pages_used", sample.pages_used},
                       {"prompt_per_s", sample.prompt_per_s},
                       {"answer_per_s", sample.answer_per_s},
                       {"step_ms", sample.step_ms}});
  return dump(answer);
}

}  // namespace cairn::serve
