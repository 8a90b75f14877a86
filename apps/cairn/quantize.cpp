// cairn quantize: a model again with fewer bits per weight.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/steady_seconds.h"
#include "command.h"
#include "formats/requantize.h"
#include "model_path.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  std::string model, out, codec = "q4_k_m";
  int threads = 0;
  bool again = false, overwrite = false;
};

std::string names() {
  std::string all;
  for (const auto& r : formats::recipes()) all += (all.empty() ? "" : ", ") + std::string(r.name);
  return all;
}

int run(const Options& options) {
  const auto* recipe = formats::find_recipe(options.codec);
  if (!recipe)
    fail(ErrorKind::invalid_argument, "--codec '{}' is unknown; cairn writes {}", options.codec, names());
  const auto path = resolve_model(options.model);
  if (path.extension() != ".gguf")
    fail(ErrorKind::unsupported,
         "{} is no GGUF file; cairn quantize reads GGUF files with f32, f16 or bf16 weights", path.string());
  if (!options.overwrite && std::filesystem::exists(options.out))
    fail(ErrorKind::invalid_argument, "{} exists already; say --overwrite to replace it", options.out);
  if (std::error_code e; std::filesystem::equivalent(path, options.out, e))
    fail(ErrorKind::invalid_argument, "{} would be read and written at once; give another name", options.out);
  const auto source = formats::read_gguf(path);
  if (source.find("split.count") && source.integer("split.count").value_or(1) > 1)
    fail(ErrorKind::unsupported, "{} is one of {} shards; join them into one file first", path.string(),
         *source.integer("split.count"));
  const auto plan = formats::plan_requantize(source, *recipe, options.again);

  ThreadPool pool(options.threads);
  const double start = steady_seconds();
  {
    ProgressBar bar("quantizing", 0, ProgressUnit::bytes);
    formats::requantize(source, *recipe, plan, options.out, pool,
                        [&](uint64_t done, uint64_t total) { bar.update(done, total); });
  }
  struct Sum {
    int64_t tensors = 0, elements = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string_view, Sum> sums;
  Sum all;
  uint64_t before = 0;
  for (const auto& p : plan) {
    const auto& t = source.tensors[p.source];
    for (auto* sum : {&sums[codecs::codec(p.codec).name], &all})
      ++sum->tensors, sum->elements += t.elements(), sum->bytes += p.bytes;
    before += t.bytes.size();
    if (!p.note.empty())
      write_out(fmt::format("{}: {} instead ({})\n", t.name, codecs::codec(p.codec).name, p.note));
  }
  for (const auto& [name, sum] : sums)
    write_out(fmt::format("{:8} {:5} tensors {:>12}\n", name, sum.tensors, readable_bytes(sum.bytes)));
  write_out(fmt::format("{}: {} instead of {}, {:.2f} bits per weight, {:.1f} s\n", options.out,
                        readable_bytes(all.bytes), readable_bytes(before),
                        8.0 * double(all.bytes) / double(all.elements), steady_seconds() - start));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("model", o->model, "the GGUF file to start from")->required();
  app.add_option("-o,--out", o->out, "the file to write")->required();
  app.add_option("--codec", o->codec, "what matrices become: " + names())->capture_default_str();
  app.add_option("-t,--threads", o->threads, "threads (default: one per core)")->check(CLI::Range(0, 1024));
  app.add_flag("--again", o->again, "also quantize what is quantized already");
  app.add_flag("--overwrite", o->overwrite, "replace the file if it exists");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"quantize", "write a GGUF file with fewer bits per weight", setup});

}  // namespace
}  // namespace cairn::app
