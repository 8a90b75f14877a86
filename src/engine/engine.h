// A loaded model ready to compute: program, packed weights, KV pool and executor, with every byte known
// before it is taken.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backends/common/executor.h"
#include "backends/cpu/packed_folder.h"
#include "base/thread_pool.h"
#include "models/model.h"

namespace cairn::cuda {
class Device;
}

namespace cairn::engine {

// Where a model runs.
enum class Place : uint8_t { automatic, cpu, cuda };
std::string_view to_string(Place);

struct EngineOptions {
  // automatic: a GPU when there is one and the model fits into it, else the CPU.
  Place place = Place::automatic;
  bool exact = false;  // f32 arithmetic throughout on the GPU too, with plain kernels: for tests
  int threads = 0;     // 0: one per core
  // The most tokens of a sequence; 0: the model's own length, up to 8192, as far as memory allows.
  int64_t context = 0;
  int64_t cache_tokens = 0;  // tokens in the KV pool, all sequences together; 0: `sequences` contexts
  // How many sequences of the full context the pool should hold. Asked for more than one, it takes what is
  // free, on the CPU half of it, as long as one context fits.
  int64_t sequences = 1;
  int page_tokens = 32;               // of a page of the KV pool; a power of two
  std::optional<kv::KvForm> kv_form;  // absent: f16 on the CPU, bf16 on the GPU
  int64_t step_tokens = 0;  // the most rows of a step: longer prompts go in pieces; 0: 512 (CPU), 2048 (GPU)
  int64_t step_logits = 8;  // the most rows of a step whose scores are wanted
  bool fuse = true;         // false: the program's basic instructions, for tests
  uint64_t memory_limit = 0;  // bytes; 0: what the system has available
  std::function<void(const backends::LoadProgress&)> on_load;
  cpu::PackedFolder packed;  // where packed weights are kept for later starts; by default nowhere
  // One line when they were kept, or why not; from another thread.
  std::function<void(const std::string&)> on_packed;
};

// Every byte that loading will take, before it takes any.
struct MemoryPlan {
  Place place = Place::cpu;  // never automatic
  std::string why;           // place was automatic and is not the GPU: the reason
  kv::KvForm kv_form = kv::KvForm::f16;
  int64_t step_tokens = 0;
  uint64_t weights = 0, kv = 0, scratch = 0, available = 0;
  int64_t context = 0;       // the most tokens of a sequence
  int64_t cache_tokens = 0;  // tokens that the KV pool will hold
  uint64_t total() const { return weights + kv + scratch; }
};

// Throws Error(out_of_memory) naming needed and available bytes and the longest context that fits, and
// Error(invalid_argument) for a context longer than the model's.
MemoryPlan plan_memory(const models::Model&, const EngineOptions&);

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
  std::string device_name() const;                        // "NVIDIA H200", "2 threads, amx"
  const cuda::Device* gpu() const { return gpu_.get(); }  // null: it runs on the CPU
  backends::StepTimes times() const { return executor_->times(); }
  backends::KernelTimes kernel_times() const { return executor_->kernel_times(); }
  kv::KvPool& kv() { return *kv_; }
  // A way to the bytes of the pool's pages, for one thread. The engine must outlive it.
  std::unique_ptr<kv::PageBytes> page_bytes();
  // See backends::Executor.
  int64_t table_pages() const { return executor_->table_pages(); }
  ThreadPool& pool() { return pool_; }
  const std::string& weights_origin() const { return weights_origin_; }  // one line for people

  // Runs the rows of all sequences and counts them into their caches. Checks token ids and lengths.
  backends::StepResult step(std::span<backends::SequenceStep>, program::Trace* trace = nullptr);

  // Feeds `tokens` to a sequence in pieces of at most bounds().tokens; the result has the last logit_rows of
  // them (at most bounds().logits, all within the last piece). on_progress is called after each piece with
  // the tokens done; it may throw to stop, which leaves the sequence at a piece's end. row_class: decode for
  // tokens that extend an answer.
  backends::StepResult feed(kv::Sequence&, std::span<const int32_t> tokens, int64_t logit_rows,
                            int64_t rope_length, const std::function<void(int64_t)>& on_progress = {},
                            program::Trace* trace = nullptr,
                            backends::RowClass row_class = backends::RowClass::prompt);

 private:
  models::Model model_;
  program::Program program_;
  std::unique_ptr<cuda::Device> gpu_;  // open while memory_ is planned for it
  MemoryPlan memory_;
  ThreadPool pool_;
  std::unique_ptr<kv::KvPool> kv_;
  std::unique_ptr<backends::Executor> executor_;
  std::string weights_origin_;
  std::unique_ptr<cpu::PackedWriter> writer_;  // reads the executor's weights; null: nothing to keep
  bool scored_ = false;                        // a first token could be chosen
};

}  // namespace cairn::engine
