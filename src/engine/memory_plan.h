// Where a model's bytes will lie, and how many they are, before anything is loaded.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "backends/common/executor.h"
#include "backends/cpu/packed_folder.h"
#include "engine/placement.h"
#include "kv/pool.h"
#include "models/model.h"

namespace cairn::cuda {
class Device;
struct DeviceFacts;
}  // namespace cairn::cuda

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
  // Low-rank products expand tile by tile, on the CPU; false: one product after the other.
  bool fuse_low_rank = true;
  uint64_t memory_limit = 0;  // bytes of host memory; 0: what the system has available
  uint64_t gpu_memory = 0;    // bytes of GPU memory; 0: what is free. What does not fit goes to the CPU.
  // Layers that the GPU computes (the last ones), and of how many of them the CPU computes the routed experts
  // (the first ones); absent: as planned.
  std::optional<int64_t> gpu_layers, cpu_expert_layers;
  // The weights of so many layers, the first ones, stay in page-locked host memory and are copied to the GPU
  // in every step; bf16 and DFloat11.
  int64_t offload_weights = 0;
  std::function<void(const backends::LoadProgress&)> on_load;
  cpu::PackedFolder packed;  // where packed weights are kept for later starts; by default nowhere
  // One line when they were kept, or why not; from another thread.
  std::function<void(const std::string&)> on_packed;
};

struct MemoryShare {
  uint64_t weights = 0, kv = 0, scratch = 0, available = 0;
  uint64_t total() const { return weights + kv + scratch; }
};

// A model that lies on the GPU and on the CPU.
struct MemorySplit {
  CpuShare on_cpu;
  MemoryShare gpu, cpu;
  kv::KvForm cpu_kv_form = kv::KvForm::f16;
  ModelSizes sizes;  // what was planned with
  StepSpeeds speeds;
  double tokens_per_second = 0;  // of one sequence, foreseen
};

// Every byte that loading will take, before it takes any.
struct MemoryPlan {
  Place place = Place::cpu;  // never automatic; cuda also where the CPU has a share
  std::string why;           // place was automatic and is not the GPU: the reason
  kv::KvForm kv_form = kv::KvForm::f16;
  int64_t step_tokens = 0;
  uint64_t weights = 0, kv = 0, scratch = 0, available = 0;
  int64_t context = 0;       // the most tokens of a sequence
  int64_t cache_tokens = 0;  // tokens that the KV pool will hold
  uint64_t total() const { return weights + kv + scratch; }
  std::optional<MemorySplit> split;  // the sums are above
};

// The GPU as a plan sees it.
struct GpuBudget {
  uint64_t free = 0;                         // bytes
  double read_bytes_per_s = 0;               // what its memory's clock and width promise
  const cuda::DeviceFacts* facts = nullptr;  // null: not there; the work space of attention is left out
};

// Throws Error(out_of_memory) naming needed and available bytes and the longest context that fits, and
// Error(invalid_argument) for a context longer than the model's.
MemoryPlan plan_memory(const models::Model&, const EngineOptions&);
// The same; a GPU that it is planned for stays open.
MemoryPlan plan_memory(const models::Model&, const EngineOptions&, std::unique_ptr<cuda::Device>&);
// For a GPU that is described, and host memory that is read at that speed: needs neither.
MemoryPlan plan_memory(const models::Model&, const EngineOptions&, const GpuBudget&, double cpu_bytes_per_s);

// The model's program where the CPU computes it: an encoder's low-rank products are then fused with
// attention, whose cache has other slots, so that plans and caches begin with that.
program::Program program_on_cpu(const models::Model&, const EngineOptions&);
// The program as executors get it.
program::Program as_run(const models::Model&, const EngineOptions&);
// The rows of scores that a step may ask for; an encoder has none, and gives all rows of its texts.
int64_t step_logits(const models::Model&, const EngineOptions&, int64_t step_tokens);

// "layers 0-11 on the CPU (1.9 of 120.0 GB), the others on the GPU (3.2 of 4.0 GB); about 40 tokens/s".
std::string describe(const MemorySplit&);

// What the pool of a whole model or of a part's slots is made with.
kv::KvConfig kv_config(const models::Model&, size_t slots, kv::KvForm, int page_tokens, int64_t tokens);

}  // namespace cairn::engine
