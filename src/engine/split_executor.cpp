#include "engine/split_executor.h"

#include <algorithm>
#include <span>

#include "kv/page_bytes.h"

namespace cairn::engine {
namespace {

class SplitPageBytes final : public kv::PageBytes {
 public:
  explicit SplitPageBytes(std::vector<std::unique_ptr<kv::PageBytes>> parts) : parts_(std::move(parts)) {}
  int64_t size() const override {
    int64_t bytes = 0;
    for (const auto& part : parts_) bytes += part->size();
    return bytes;
  }
  void read(int32_t page, std::span<std::byte> to) override {
    each(to, [&](kv::PageBytes& part, std::span<std::byte> bytes) { part.read(page, bytes); });
  }
  void write(int32_t page, std::span<const std::byte> from) override {
    each(from, [&](kv::PageBytes& part, std::span<const std::byte> bytes) { part.write(page, bytes); });
  }
  void pin(std::span<std::byte> memory) override {
    for (const auto& part : parts_) part->pin(memory);
  }

 private:
  template <typename Span, typename F>
  void each(Span bytes, F&& f) {
    for (const auto& part : parts_) {
      f(*part, bytes.first(size_t(part->size())));
      bytes = bytes.subspan(size_t(part->size()));
    }
  }
  std::vector<std::unique_ptr<kv::PageBytes>> parts_;
};

}  // namespace

SplitExecutor::SplitExecutor(program::Parts parts, kv::KvPool& pages,
                             const std::function<Member(const program::Part&)>& make)
    : parts_(std::move(parts)) {
  std::vector<kv::KvPool*> pools;
  for (const auto& part : parts_.parts) {
    members_.push_back(make(part));
    if (!part.program.kv.empty()) pools.push_back(members_.back().kv.get());
  }
  if (std::all_of(pools.begin(), pools.end(), [](const auto* pool) { return pool->can_copy(); }))
    pages.set_page_copy([pools](int32_t from, int32_t to, int64_t tokens) {
      for (auto* pool : pools) pool->copy_page(from, to, tokens);
    });
}

backends::StepResult SplitExecutor::run(std::span<const backends::SequenceStep> sequences,
                                        program::Trace* trace) {
  std::vector<program::Trace> traces(members_.size());
  // A GPU's inputs travel while the CPU begins.
  for (size_t m = 0; m < members_.size(); ++m)
    members_[m].executor->begin_stages(sequences, trace ? &traces[m] : nullptr);
  backends::StepResult result;
  for (const auto& turn : parts_.turns) {
    const auto r = members_[size_t(turn.part)].executor->run_stage(size_t(turn.stage));
    result.rows = r.rows;
    if (r.logits) result.logits = r.logits, result.vocabulary = r.vocabulary;
    if (r.hidden) result.hidden = r.hidden, result.dim = r.dim;
    hand_over(turn);
  }
  if (trace) join(traces, *trace);
  return result;
}

// In the whole program's numbers, and as one step.
void SplitExecutor::join(const std::vector<program::Trace>& traces, program::Trace& trace) const {
  for (size_t m = 0; m < members_.size(); ++m) {
    const auto& whole = parts_.parts[m].instructions;
    for (auto record : traces[m].records()) {
      record.instruction = whole[size_t(record.instruction)];
      trace.emit(record);
    }
    if (traces[m].kernels().empty()) continue;
    trace.begin_step(traces[m].clock());
    for (auto kernel : traces[m].kernels()) {
      kernel.instruction = whole[size_t(kernel.instruction)];
      trace.emit(std::move(kernel));
    }
  }
}

void SplitExecutor::hand_over(const program::Turn& turn) {
  auto& from = *members_[size_t(turn.part)].executor;
  const auto& out = parts_.parts[size_t(turn.part)].program.stages[size_t(turn.stage)].out;
  if (out.empty()) return;
  // The next turn of every other part.
  std::vector<bool> seen(members_.size(), false);
  seen[size_t(turn.part)] = true;
  for (const auto* next = &turn + 1; next != parts_.turns.data() + parts_.turns.size(); ++next) {
    if (seen[size_t(next->part)]) continue;
    seen[size_t(next->part)] = true;
    const auto& in = parts_.parts[size_t(next->part)].program.stages[size_t(next->stage)].in;
    for (const program::Value v : out)
      if (std::find(in.begin(), in.end(), v) != in.end())
        members_[size_t(next->part)].executor->hand_in(v, from.hand_out(v));
  }
}

uint64_t SplitExecutor::scratch_bytes() const {
  uint64_t bytes = 0;
  for (const auto& member : members_) bytes += member.executor->scratch_bytes();
  return bytes;
}

std::unique_ptr<kv::PageBytes> SplitExecutor::page_bytes() {
  std::vector<std::unique_ptr<kv::PageBytes>> parts;
  for (size_t m = 0; m < members_.size(); ++m) {
    if (parts_.parts[m].program.kv.empty()) continue;
    auto bytes = members_[m].executor->page_bytes();
    parts.push_back(bytes ? std::move(bytes) : kv::host_page_bytes(*members_[m].kv));
  }
  return std::make_unique<SplitPageBytes>(std::move(parts));
}

int64_t SplitExecutor::table_pages() const {
  int64_t pages = members_.front().executor->table_pages();
  for (const auto& member : members_) pages = std::min(pages, member.executor->table_pages());
  return pages;
}

backends::StepTimes SplitExecutor::times() const {
  backends::StepTimes times;
  for (const auto& member : members_) times.add(member.executor->times());
  return times;
}

}  // namespace cairn::engine
