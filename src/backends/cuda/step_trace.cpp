#include "backends/cuda/step_trace.h"

#include <algorithm>

namespace cairn::cuda {

StepTrace::StepTrace(Stream& stream, program::Trace& trace, size_t first, size_t count)
    : stream_(stream), trace_(trace), first_(first), enqueued_(count) {
  std::string why;
  cupti_ = Cupti::instance(&why);
  trace_.begin_step(cupti_ ? "CUPTI" : "events between the instructions: " + why);
  if (cupti_) {
    cupti_->start();
    recording_ = true;
  } else {
    for (size_t i = 0; i <= count; ++i) events_.emplace_back(stream.device(), true);
  }
  begin_ns_ = program::Trace::now_ns();
  if (!cupti_) events_[0].record(stream_);
}

StepTrace::~StepTrace() {
  if (recording_) cupti_->stop();  // a launch has thrown
}

void StepTrace::before() {
  enqueued_[next_] = program::Trace::now_ns();
  if (cupti_) cupti_->push(int64_t(next_));
}
void StepTrace::after() {
  if (cupti_)
    cupti_->pop();
  else
    events_[next_ + 1].record(stream_);
  ++next_;
}

void StepTrace::finish(const std::function<program::TraceRecord(size_t)>& f) {
  const auto ns = [&](const Event& e) { return begin_ns_ + uint64_t(1e6 * double(e.since(events_[0]))); };
  std::vector<program::TraceRecord> records;
  for (size_t i = 0; i < next_; ++i) {
    auto r = f(first_ + i);
    r.enqueue_ns = enqueued_[i];
    r.start_ns = cupti_ ? 0 : ns(events_[i]);
    r.end_ns = cupti_ ? 0 : ns(events_[i + 1]);
    records.push_back(r);
  }
  if (cupti_) {
    recording_ = false;
    for (auto& k : cupti_->stop()) {
      auto& r = records[size_t(k.id)];
      r.start_ns = r.start_ns == 0 ? k.start_ns : std::min(r.start_ns, k.start_ns);
      r.end_ns = std::max(r.end_ns, k.end_ns);
      trace_.emit(program::KernelRecord{r.instruction, 0, std::move(k.name), k.launch_ns, k.launched_ns,
                                        k.start_ns, k.end_ns});
    }
    // What launched nothing (merged into another instruction) takes no time.
    for (auto& r : records)
      if (r.start_ns == 0) r.start_ns = r.end_ns = r.enqueue_ns;
  } else {
    for (const auto& r : records)
      trace_.emit(
          program::KernelRecord{r.instruction, 0, {}, r.enqueue_ns, r.enqueue_ns, r.start_ns, r.end_ns});
  }
  for (const auto& r : records) trace_.emit(r);
}

}  // namespace cairn::cuda
