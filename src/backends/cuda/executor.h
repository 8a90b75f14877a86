// Executes a program on one GPU, step after step. Everything is allocated at construction; a step is launches
// on one stream, recorded once as a graph where steps repeat (one new token per sequence).
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "backends/common/part_executor.h"
#include "backends/cuda/attention.h"
#include "backends/cuda/fused_ropes.h"
#include "backends/cuda/handover.h"
#include "backends/cuda/matmul_many.h"
#include "backends/cuda/model_weights.h"
#include "backends/cuda/pages.h"
#include "backends/cuda/sample.h"
#include "backends/cuda/work_space.h"
#include "program/arena.h"

namespace cairn::cuda {

struct ExecutorNeeds {
  uint64_t weights = 0, kv = 0, scratch = 0;  // bytes of GPU memory
};
// All that an executor will allocate. facts: null where there is no GPU to ask; the work space of attention
// is then left out.
ExecutorNeeds executor_needs(const program::Program&, std::span<const codecs::StoredWeight>,
                             const kv::KvConfig&, const program::Bounds&, const ExecutorOptions&,
                             const DeviceFacts* facts);

class Executor final : public backends::PartExecutor {
 public:
  // The program, pool of threads and KV pool (whose pages lie elsewhere: here) must outlive the executor.
  Executor(const program::Program&, std::span<const codecs::StoredWeight>, ThreadPool&, kv::KvPool&,
           const program::Bounds&, const Device&, const ExecutorOptions&,
           const std::function<void(const backends::LoadProgress&)>& on_load = {});
  ~Executor() override;

  backends::StepResult run(std::span<const backends::SequenceStep>, program::Trace* trace = nullptr) override;
  void enqueue(std::span<const backends::SequenceStep>) override;
  backends::StepResult finish() override;
  bool overlaps() const override { return overlaps_; }
  bool draws(const text::Draw&) const override;
  // Parts: rows of class decode lie first on the device, also when the caller's do not.
  void begin_stages(std::span<const backends::SequenceStep>, program::Trace* trace) override;
  backends::StepResult run_stage(size_t stage) override;
  void hand_in(program::Value, const std::byte* rows) override;
  const std::byte* hand_out(program::Value) override;

  const program::Bounds& bounds() const override { return bounds_; }
  uint64_t scratch_bytes() const override;
  backends::StepTimes times() const override { return times_; }
  std::unique_ptr<kv::PageBytes> page_bytes() override { return device_page_bytes(device_, *pages_); }
  int64_t table_pages() const override;
  backends::KernelTimes kernel_times() const override {
    return {kernels_.compiled(), kernels_.prepare_seconds()};
  }
  void measure_idle(bool on) override { measure_idle_ = on, last_end_ = 0; }

 private:
  class Step;
  // One kernel for gate, up and what joins them.
  bool gated_together(const program::GatedMatMul&) const;
  void prepare_fast_kernels();
  program::Stage stage(size_t index) const;  // a whole program is one
  // What the host writes and reads of one step; there are two, so that a step can be prepared while another
  // runs.
  struct Slot {
    PinnedBuffer inputs, results, tokens;
    std::optional<Event> done;
    backends::StepResult result;
    bool timed = false;
  };
  // Where a slot's tokens end and the two times begin.
  int64_t clock_word() const { return (bounds_.logits + 1) / 2 * 2; }

  const program::Program& program_;
  kv::KvPool& kv_;
  program::Bounds bounds_;
  const Device& device_;
  ExecutorOptions options_;
  KernelCache kernels_;
  Stream stream_;
  ModelWeights weights_;
  std::vector<Element> elements_;
  program::ArenaPlan plan_;
  Buffer arena_, gated_, hidden_, kv_memory_, inputs_, ropes_;
  Buffer drawn_, clock_;  // tokens by row of scores; when the step began and ended, in nanoseconds
  InputLayout layout_;
  WorkSpace space_;
  Slot slots_[2];
  std::vector<Slot*> under_way_;  // oldest first
  int next_slot_ = 0;
  bool overlaps_ = true;  // every embedding is looked up on the device
  bool measure_idle_ = false;
  uint64_t last_end_ = 0;    // of the device's clock; 0: not known
  PinnedBuffer embeddings_;  // rows that the host decodes; per instruction where, in bytes
  std::vector<int64_t> decoded_at_;
  std::vector<Address> frequencies_, slopes_;  // of the rope tables; of the ALiBi attentions
  backends::StepTimes times_;
  Buffer constants_, unpacked_, quantized_, converted_;
  ManyScratch scratch_;  // in unpacked_
  std::vector<FusedRope> fused_ropes_;
  std::vector<ExpertRole> expert_roles_;  // per instruction
  ExpertRoom expert_room_;
  std::vector<int> attention_kinds_;
  std::unique_ptr<PageMover> pages_;
  std::unique_ptr<AttentionEngine> attention_;  // null: the plain kernels
  // One graph per shape of step: stage, rows, logit rows, and what else it does.
  using Shape = std::array<int64_t, 4>;
  std::map<Shape, Graph> graphs_;
  std::set<Shape> graphs_seen_;

  // Of a part: the step between its stages.
  std::unique_ptr<Step> step_;
  Handover handover_;
};

}  // namespace cairn::cuda
