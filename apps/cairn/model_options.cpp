#include "model_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "backends/cuda/device.h"
#include "model_path.h"
#include "terminal.h"

namespace cairn::app {

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_option("model", options.model,
                 "folder, GGUF file or org/name; default: the model that ships with cairn");
  app.add_option("-t,--threads", options.load.threads, "threads (default: one per core)")
      ->check(CLI::Range(0, 1024));
  app.add_option("-c,--ctx", options.load.context, "tokens of context (default: what fits, up to 8192)")
      ->check(CLI::NonNegativeNumber);
  app.add_option(
      "--kv", options.load.kv,
      "how keys and values are kept: f32, f16, bf16, q8_0, on a GPU e4m3 too (default: f16 on the CPU, "
      "bf16 on a GPU)");
  app.add_option("--device", options.load.device,
                 "cpu, cuda, or auto: a GPU when there is one, with the CPU for what does not fit into it")
      ->capture_default_str();
  add_split_options(app, options.load);
  app.add_option_function<std::string>(
         "--lowrank-exec",
         [&options](const std::string& how) { options.shape.fuse_low_rank = how == "fused"; },
         "CPU, models stored as low-rank factors: fused, or two-gemm with full-size values between them")
      ->check(CLI::IsMember({"fused", "two-gemm"}))
      ->default_str("fused");
  app.add_flag("!--no-weight-cache", options.load.weight_cache,
               "do not keep packed weights on disk, nor use kept ones");
}

// "6GB", "1.5 GiB", "800m" or a number, as bytes; without an i in the unit by thousands.
CLI::Validator byte_size() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        char* unit = nullptr;
        const double number = std::strtod(text.c_str(), &unit);
        const bool begun = unit != text.c_str();
        std::string name;
        for (; *unit != 0; ++unit)
          if (*unit != ' ') name += char(std::tolower(static_cast<unsigned char>(*unit)));
        if (name.ends_with("b")) name.pop_back();
        const bool binary = name.size() == 2 && name.ends_with("i");
        const auto power = name.empty()                 ? 0
                           : name.size() == 1 || binary ? std::string("kmgt").find(name[0]) + 1
                                                        : 0;
        const double bytes = number * std::pow(binary ? 1024.0 : 1000.0, double(power));
        if (!begun || (power == 0 && !name.empty()) || !(bytes >= 0) || bytes > 1e18)
          return "'" + text +
                 "' is no size; write bytes, or a number with KB, MB, GB, TB, KiB, MiB, GiB or TiB";
        text = std::to_string(uint64_t(bytes));
        return {};
      },
      "SIZE");
}

void add_split_options(CLI::App& app, LoadOptions& load) {
  app.add_option("--gpu-memory", load.gpu_memory, "GPU memory to use, e.g. 6GB (default: what is free)")
      ->transform(byte_size());
  app.add_option("--gpu-layers", load.gpu_layers, "layers on the GPU, the last ones (default: what fits)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--offload-weights", load.offload_weights,
                 "keep the weights of the first so many layers in host memory, copied in every step (bf16, "
                 "DFloat11; default: none)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--cpu-experts", load.cpu_expert_layers,
                 "of how many of these layers the CPU computes the routed experts (default: as is fastest)")
      ->check(CLI::NonNegativeNumber);
}

std::unique_ptr<Model::Impl> load_model(const ModelOptions& options) {
  ProgressBar bar("loading", 0, ProgressUnit::bytes);
  LoadOptions load = options.load;
  load.on_load = [&](uint64_t done, uint64_t total) { bar.update(done, total); };
  auto model = std::make_unique<Model::Impl>(resolve_model(options.model), load, options.shape);
  bar.finish();
  // Without any GPU nobody expected one.
  const auto& memory = model->engine.memory();
  if (!memory.why.empty() && cuda::driver::gpu_expected())
    fmt::print(stderr, "cairn: running on the CPU, not on the GPU: {}\n", memory.why);
  if (memory.split) fmt::print(stderr, "cairn: {}\n", describe(*memory.split));
  return model;
}

}  // namespace cairn::app
