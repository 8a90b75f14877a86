#include "engine/placement.h"

#include <algorithm>

namespace cairn::engine {

SplitPlan weigh(const ModelSizes& sizes, const CpuShare& cpu, const StepSpeeds& speeds) {
  SplitPlan plan;
  plan.cpu = cpu;
  plan.bytes = {sizes.gpu_work_space + sizes.gpu_scores, sizes.cpu_work_space + sizes.cpu_embedding};
  uint64_t gpu_read = sizes.read_scores, cpu_read = 0;
  for (int64_t l = 0; l < int64_t(sizes.layers.size()); ++l) {
    const auto& layer = sizes.layers[size_t(l)];
    const bool whole = l < cpu.layers, experts = whole || l < cpu.layers + cpu.experts;
    (whole ? plan.bytes.cpu : plan.bytes.gpu) +=
        whole ? layer.cpu_weights + layer.cpu_kv : layer.gpu_weights + layer.gpu_kv;
    (experts ? plan.bytes.cpu : plan.bytes.gpu) += experts ? layer.cpu_experts : layer.gpu_experts;
    (whole ? cpu_read : gpu_read) += layer.read;
    (experts ? cpu_read : gpu_read) += layer.read_experts;
  }
  // From the embedding or the last whole layer to the GPU, and to each layer's experts and back.
  const auto crossings = double(1 + 2 * cpu.experts);
  const double seconds = double(gpu_read) / speeds.gpu_bytes_per_s +
                         double(cpu_read) / speeds.cpu_bytes_per_s + crossings * speeds.seconds_per_crossing;
  plan.tokens_per_second = seconds > 0 ? 1 / seconds : 0;
  return plan;
}

std::optional<SplitPlan> plan_split(const ModelSizes& sizes, const MemoryBudget& budget,
                                    const StepSpeeds& speeds) {
  const auto layers = int64_t(sizes.layers.size());
  const bool mixture = std::any_of(sizes.layers.begin(), sizes.layers.end(),
                                   [](const LayerSizes& layer) { return layer.gpu_experts > 0; });
  std::optional<SplitPlan> best;
  // At least one layer keeps its attention on the GPU, or its kernels would be loaded for the scores alone.
  for (int64_t whole = 0; whole < layers; ++whole)
    for (int64_t experts = 0; experts <= (mixture ? layers - whole : 0); ++experts) {
      if (whole + experts == 0) continue;
      const SplitPlan plan = weigh(sizes, {whole, experts}, speeds);
      if (plan.bytes.gpu > budget.gpu) continue;
      if (plan.bytes.cpu <= budget.cpu && (!best || plan.tokens_per_second > best->tokens_per_second))
        best = plan;
      break;  // more on the CPU is slower
    }
  return best;
}

std::vector<bool> expert_instructions(const program::Program& program) {
  std::vector<bool> expert(program.instructions.size(), false), from_experts(program.values.size(), false);
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const auto& operation = program.instructions[i].operation;
    const auto used = program::uses(operation);
    expert[i] = std::holds_alternative<program::ExpertMatMul>(operation) ||
                std::any_of(used.in.begin(), used.in.end(),
                            [&](program::Value v) { return from_experts[size_t(v.id)]; });
    if (expert[i] && !std::holds_alternative<program::ExpertCombine>(operation))
      for (const auto v : used.out) from_experts[size_t(v.id)] = true;
  }
  return expert;
}

std::vector<program::Lane> lanes_of(const program::Program& program, const CpuShare& cpu) {
  const auto expert = expert_instructions(program);
  std::vector<program::Lane> lanes;
  bool begun = false;  // the first layer
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const int64_t layer = program.instructions[i].layer;
    begun |= layer >= 0;
    const bool on_cpu =
        layer < 0 ? !begun : layer < cpu.layers || (expert[i] && layer < cpu.layers + cpu.experts);
    lanes.push_back(on_cpu ? kCpuLane : kGpuLane);
  }
  return lanes;
}

}  // namespace cairn::engine
