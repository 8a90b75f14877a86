#include "inspect_plan.h"

#include <fmt/format.h>

#include "api/model_impl.h"
#include "backends/cuda/device.h"
#include "base/read_bandwidth.h"
#include "engine/memory_plan.h"
#include "terminal.h"

namespace cairn::app {
namespace {

// What a GPU that is only described is taken for: a desktop's of 2022.
constexpr double kDescribedGpuBytesPerS = 1e12;

std::string line(std::string_view what, std::string_view where, uint64_t weights, uint64_t cache) {
  return fmt::format("{:<32}{:<6}{:>12}{:>12}\n", what, where, readable_bytes(weights),
                     cache > 0 ? readable_bytes(cache) : "");
}

std::string layers_text(const engine::MemorySplit& split) {
  const auto& sizes = split.sizes;
  const auto count = int64_t(sizes.layers.size());
  std::string text = line("embedding", "CPU", sizes.cpu_embedding, 0);
  struct Group {
    int64_t begin, end;
    bool whole, experts;
  };
  const int64_t whole = split.on_cpu.layers, experts = whole + split.on_cpu.experts;
  for (const Group g :
       {Group{0, whole, true, true}, {whole, experts, false, true}, {experts, count, false, false}}) {
    if (g.begin == g.end) continue;
    uint64_t weights = 0, cache = 0, routed = 0;
    for (int64_t l = g.begin; l < g.end; ++l) {
      const auto& layer = sizes.layers[size_t(l)];
      weights += g.whole ? layer.cpu_weights : layer.gpu_weights;
      cache += g.whole ? layer.cpu_kv : layer.gpu_kv;
      routed += g.experts ? layer.cpu_experts : layer.gpu_experts;
    }
    const auto name = g.end - g.begin == 1 ? fmt::format("layer {}", g.begin)
                                           : fmt::format("layers {}-{}", g.begin, g.end - 1);
    text += line(name, g.whole ? "CPU" : "GPU", weights, cache);
    if (routed > 0) text += line("  routed experts", g.experts ? "CPU" : "GPU", routed, 0);
  }
  text += line("scores", "GPU", sizes.gpu_scores, 0);
  text += line("work space", "CPU", split.cpu.scratch, 0);
  return text + line("work space", "GPU", split.gpu.scratch, 0);
}

}  // namespace

std::string plan_text(const models::Model& model, const LoadOptions& load) {
  engine::EngineOptions options;
  options.context = load.context;
  options.kv_form = parse_kv_form(load.kv);
  options.place = parse_place(load.device);
  place_layers(load, options);
  std::string note;
  const auto plan = [&] {
    if (load.gpu_memory == 0 || options.place == engine::Place::cpu || !cuda::list_devices().empty())
      return plan_memory(model, options);
    note = fmt::format("there is no GPU here: planned for one of {} that reads {:.0f} GB/s\n",
                       readable_bytes(load.gpu_memory), kDescribedGpuBytesPerS / 1e9);
    ThreadPool pool;
    return plan_memory(model, options, {load.gpu_memory, kDescribedGpuBytesPerS},
                       1e9 * measure_read_bandwidth(pool, size_t{256} << 20, 3).median_gb_per_s);
  }();
  std::string text = fmt::format("{}\n{}context {} tokens, {} in the cache\n\n", model.file, note,
                                 plan.context, plan.cache_tokens);
  text += fmt::format("{:<32}{:<6}{:>12}{:>12}\n", "", "on", "weights", "cache");
  if (!plan.split) {
    const auto where = plan.place == engine::Place::cuda ? "GPU" : "CPU";
    text += line("all of it", where, plan.weights, plan.kv) + line("work space", where, plan.scratch, 0);
    return text + fmt::format("\n{} of {} {} memory\n", readable_bytes(plan.total()),
                              readable_bytes(plan.available), where);
  }
  const auto& speeds = plan.split->speeds;
  return text + layers_text(*plan.split) + "\n" + describe(*plan.split) +
         fmt::format("\ncounted with {:.0f} GB/s on the GPU, {:.1f} on the CPU and {:.0f} us per crossing\n",
                     speeds.gpu_bytes_per_s / 1e9, speeds.cpu_bytes_per_s / 1e9,
                     1e6 * speeds.seconds_per_crossing);
}

}  // namespace cairn::app
