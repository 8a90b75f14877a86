// Which processor computes each instruction of a model that one GPU cannot hold, and so where its weights and
// its cache lie. A placement is data: lanes on instructions (program/parts.h cuts by them) and the bytes of
// each share.
//
// The planner here knows two moves, which is what KTransformers, PowerInfer and llama.cpp found to pay: whole
// layers on the CPU, the first ones, so that a step crosses once and ends on the GPU; and only the routed
// experts of layers, which are most of a mixture's bytes and of which a token reads few, at the price of two
// crossings per layer. All it needs is numbers, so that it is tested without a GPU.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "program/program.h"

namespace cairn::engine {

inline constexpr program::Lane kGpuLane = 0, kCpuLane = 1;

// Sizes in bytes, on the GPU and on the CPU: weights are packed differently, and caches may have other forms.
struct LayerSizes {
  uint64_t gpu_weights = 0, cpu_weights = 0;  // without routed experts
  uint64_t gpu_experts = 0, cpu_experts = 0;  // routed experts
  uint64_t gpu_kv = 0, cpu_kv = 0;
  uint64_t read = 0, read_experts = 0;  // by a step of one new token
};

struct ModelSizes {
  std::vector<LayerSizes> layers;
  uint64_t cpu_embedding = 0;                // before the first layer: always on the CPU, whose memory it has
  uint64_t gpu_scores = 0, read_scores = 0;  // behind the last layer: always on the GPU
  uint64_t gpu_work_space = 0, cpu_work_space = 0;
};

struct MemoryBudget {
  uint64_t gpu = 0, cpu = 0;
};

// What a step of one new token reads per second, as reached and not as promised, and what a crossing costs.
struct StepSpeeds {
  double gpu_bytes_per_s = 0, cpu_bytes_per_s = 0;
  double seconds_per_crossing = 0;
};

// How much lies on the CPU: whole layers 0 .. layers - 1, and the routed experts of the next `experts`
// layers.
struct CpuShare {
  int64_t layers = 0, experts = 0;
  bool operator==(const CpuShare&) const = default;
};

struct SplitPlan {
  CpuShare cpu;
  MemoryBudget bytes;            // that it takes
  double tokens_per_second = 0;  // one sequence, foreseen
};

// The bytes and the speed of one split.
SplitPlan weigh(const ModelSizes&, const CpuShare&, const StepSpeeds&);

// The fastest split that fits, on a tie the one with less on the CPU; nullopt when none fits. Something
// always lies on the CPU.
std::optional<SplitPlan> plan_split(const ModelSizes&, const MemoryBudget&, const StepSpeeds&);

// The lane of every instruction of a model's basic program.
std::vector<program::Lane> lanes_of(const program::Program&, const CpuShare&);

// Whether an instruction belongs to a layer's routed experts: multiplies with them, or works on what they
// gave up to their sum.
std::vector<bool> expert_instructions(const program::Program&);

}  // namespace cairn::engine
