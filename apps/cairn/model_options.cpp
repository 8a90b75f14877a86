#include "model_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

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
                 "cpu, cuda, or auto: a GPU when there is one and the model fits into it")
      ->capture_default_str();
  app.add_flag("!--no-weight-cache", options.load.weight_cache,
               "do not keep packed weights on disk, nor use kept ones");
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
  return model;
}

}  // namespace cairn::app
