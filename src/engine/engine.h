// A loaded model ready to compute: program, packed weights, KV pool and executor, with every byte known
// before it is taken (memory_plan.h).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backends/common/executor.h"
#include "backends/cpu/packed_folder.h"
#include "base/thread_pool.h"
#include "engine/memory_plan.h"
#include "models/model.h"

namespace cairn::engine {

class Engine {
 public:
  Engine(models::Model, const EngineOptions&);
  // Waits a while for packed weights that are still being written: ten seconds at most, and only when they
  // are used for the first time.
  ~Engine();

  const models::Model& model() const { return model_; }
  const program::Program& program() const { return program_; }
  const MemoryPlan& memory() const { return memory_; }
  const program::Bounds& bounds() const { return executor_->bounds(); }
  int threads() const { return pool_.size(); }
  int64_t context() const { return memory_.context; }
  std::string device_name() const;                        // "NVIDIA H200", "2 threads, amx", or both
  const cuda::Device* gpu() const { return gpu_.get(); }  // null: it runs on the CPU
  backends::StepTimes times() const { return executor_->times(); }
  backends::KernelTimes kernel_times() const { return executor_->kernel_times(); }
  kv::KvPool& kv() { return *kv_; }
  // A way to the bytes of the pool's pages, for one thread. The engine must outlive it.
  std::unique_ptr<kv::PageBytes> page_bytes();
  // What these bytes belong to: the model, and where its layers lie.
  std::string page_fingerprint() const;
  // See backends::Executor.
  int64_t table_pages() const { return executor_->table_pages(); }
  ThreadPool& pool() { return pool_; }
  const std::string& weights_origin() const { return weights_origin_; }  // one line for people

  // Runs the rows of all sequences and counts them into their caches. Checks token ids and lengths. An
  // encoder reads a text in one step, all of whose rows are asked for; their hidden states are what it gives.
  backends::StepResult step(std::span<backends::SequenceStep>, program::Trace* trace = nullptr);

  // The same in two halves (Executor::enqueue). The tokens count in the caches from enqueue() on.
  void enqueue(std::span<backends::SequenceStep>);
  backends::StepResult finish() { return executor_->finish(); }
  // Whether steps overlap with the host's work, so that a step should be enqueued before the one ahead of it
  // is finished where that can be.
  bool overlaps() const { return executor_->overlaps(); }
  bool draws(const text::Draw& how) const { return executor_->draws(how); }
  void measure_idle(bool on) { executor_->measure_idle(on); }

  // Feeds `tokens` to a sequence in pieces of at most bounds().tokens; the result has the last logit_rows of
  // them (at most bounds().logits, all within the last piece). on_progress is called after each piece with
  // the tokens done; it may throw to stop, which leaves the sequence at a piece's end. row_class: decode for
  // tokens that extend an answer.
  backends::StepResult feed(kv::Sequence&, std::span<const int32_t> tokens, int64_t logit_rows,
                            int64_t rope_length, const std::function<void(int64_t)>& on_progress = {},
                            program::Trace* trace = nullptr,
                            backends::RowClass row_class = backends::RowClass::prompt);

 private:
  int64_t check(std::span<backends::SequenceStep>) const;
  template <typename F>
  void append_and(std::span<backends::SequenceStep>, F&& run);

  models::Model model_;
  program::Program program_;
  std::unique_ptr<cuda::Device> gpu_;  // open while memory_ is planned for it
  MemoryPlan memory_;
  ThreadPool pool_;
  std::unique_ptr<kv::KvPool> kv_;
  std::unique_ptr<backends::Executor> executor_;
  std::string weights_origin_;
  std::unique_ptr<cpu::PackedWriter> writer_;  // reads the executor's weights; null: nothing to keep
  void load(const EngineOptions&);
  void load_split(const EngineOptions&, const program::Bounds&);
  bool scored_ = false;  // a first token could be chosen
};

}  // namespace cairn::engine
