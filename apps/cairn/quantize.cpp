// cairn quantize: a model again with fewer bits per weight.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/steady_seconds.h"
#include "command.h"
#include "formats/requantize.h"
#include "model_path.h"
#include "models/model.h"
#include "output.h"
#include "quantize/calibration_text.h"
#include "quantize/importance.h"
#include "quantize/model_folder.h"
#include "scored_text.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  std::string model, out, codec = "q4_k_m";
  int threads = 0;
  bool again = false, overwrite = false, special = false, imatrix = false;
  std::string calib;  // a file; empty: the default text
  int64_t samples = 128, seq = 0;
  std::map<std::string, std::string, std::less<>> settings;  // of the method, those that were said
};

std::string names() {
  std::string all;
  for (const auto& r : formats::recipes()) all += (all.empty() ? "" : ", ") + std::string(r.name);
  for (const auto* m : quantize::methods()) all += ", " + std::string(m->name);
  return all;
}

// What was said, and the standard for everything else.
quantize::Settings settings_of(const quantize::Method& method, const Options& options) {
  std::map<std::string, std::string, std::less<>> values;
  for (const auto& setting : method.settings) values.emplace(setting.name, setting.standard);
  for (const auto& [name, value] : options.settings) {
    const auto found = values.find(name);
    if (found == values.end())
      fail(ErrorKind::invalid_argument, "--{} says nothing to the codec {}", name, method.name);
    found->second = value;
  }
  return quantize::Settings(std::move(values));
}

std::vector<std::vector<int32_t>> samples_of(const Options& options, const models::Model& model) {
  const auto tokenizer = text::load_tokenizer(
      std::filesystem::is_directory(model.checkpoint.path) ? model.checkpoint.path
      : model.checkpoint.format == formats::Format::gguf   ? model.checkpoint.path
                                                           : model.checkpoint.path.parent_path());
  const std::string text = options.calib.empty() ? std::string(quantize::default_text())
                                                 : read_text_file(options.calib, size_t{1} << 30);
  const auto tokens = tokenizer->encode(text, {.add_special = false, .parse_special = options.special});
  quantize::CalibrationShape shape;
  shape.samples = options.samples;
  if (options.seq > 0) shape.seq = options.seq;
  shape.context = model.context_length;
  return quantize::calibration_samples(tokens, first_token(*tokenizer), shape,
                                       options.calib.empty() ? "that ships with cairn" : options.calib);
}

// A Hugging Face folder to another.
int run_folder(const Options& options, const quantize::Method& method) {
  const auto settings = settings_of(method, options);
  const auto encoder = method.make(settings);
  const auto model = models::open_model(resolve_model(options.model));
  ThreadPool pool(options.threads);
  const double start = steady_seconds();
  quantize::FolderReport report;
  {
    ProgressBar bar("quantizing", 0, ProgressUnit::bytes);
    quantize::FolderJob job;
    job.out = options.out;
    job.overwrite = options.overwrite;
    job.settings = fmt::format("{} {}", method.name, settings.all());
    if (encoder->moments() != quantize::Moments::none) job.samples = samples_of(options, model);
    job.on_progress = [&](uint64_t done, uint64_t total) { bar.update(done, total); };
    report = quantize::quantize_folder(model, *encoder, job, pool);
  }
  for (const auto& [name, why] : report.kept) write_out(fmt::format("{}: stays as it is; {}\n", name, why));
  for (const auto& line : report.lines) write_out(line + "\n");
  if (report.resumed > 0)
    write_out(fmt::format("{} shards were there already, of an earlier run\n", report.resumed));
  write_out(fmt::format("{:8} {:5} matrices {:>12}, {:.2f} bits per weight\n", method.name, report.matrices,
                        readable_bytes(report.after), 8.0 * double(report.after) / double(report.weights)));
  write_out(fmt::format("{}: {} instead of {}, {:.1f} s\n", options.out, readable_bytes(report.all_after),
                        readable_bytes(report.all_before), steady_seconds() - start));
  return 0;
}

formats::Importance importance_of(const Options& options, const std::filesystem::path& path,
                                  ThreadPool& pool) {
  const auto model = models::open_model(path);
  const auto samples = samples_of(options, model);
  uint64_t total = 0, done = 0;
  for (const auto& sample : samples) total += sample.size() * uint64_t(model.layers);
  ProgressBar bar("calibrating", total, ProgressUnit::tokens);
  const auto folder = std::filesystem::absolute(options.out).parent_path();
  return quantize::importance_of(model, samples, folder, pool,
                                 [&](int64_t rows) { bar.update(done += uint64_t(rows)); });
}

int run(const Options& options) {
  if (const auto* method = quantize::find_method(options.codec)) return run_folder(options, *method);
  const auto* recipe = formats::find_recipe(options.codec);
  if (!recipe)
    fail(ErrorKind::invalid_argument, "--codec '{}' is unknown; cairn writes {}", options.codec, names());
  const auto path = resolve_model(options.model);
  if (path.extension() != ".gguf")
    fail(ErrorKind::unsupported,
         "{} is no GGUF file; {} is written from GGUF files with f32, f16 or bf16 weights", path.string(),
         recipe->name);
  if (!options.settings.empty())
    fail(ErrorKind::invalid_argument, "--{} says nothing to the codec {}", options.settings.begin()->first,
         recipe->name);
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
  formats::Importance importance;
  if (options.imatrix || !options.calib.empty()) importance = importance_of(options, path, pool);
  {
    ProgressBar bar("quantizing", 0, ProgressUnit::bytes);
    formats::requantize(
        source, *recipe, plan, options.out, pool,
        [&](uint64_t done, uint64_t total) { bar.update(done, total); }, importance);
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
  app.add_option("model", o->model, "what to start from: a GGUF file, or a Hugging Face folder for gptq")
      ->required();
  app.add_option("-o,--out", o->out, "the file or folder to write")->required();
  app.add_option("--codec", o->codec, "what matrices become: " + names())->capture_default_str();
  app.add_option("-t,--threads", o->threads, "threads (default: one per core)")->check(CLI::Range(0, 1024));
  app.add_option("--calib", o->calib, "text to calibrate with (default: a short one that ships with cairn)")
      ->check(CLI::ExistingFile);
  app.add_flag("--imatrix", o->imatrix,
               "GGUF: columns count as much as calibration text says (--calib says so too)");
  app.add_flag("--special", o->special, "what is written like a special token in it is one");
  app.add_option("--samples", o->samples, "the most sequences of calibration text")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--seq", o->seq, "tokens of a sequence (default: 2048, or what model and text allow)")
      ->check(CLI::Range(1, 1 << 24));
  app.add_flag("--again", o->again, "also quantize what is quantized already");
  app.add_flag("--overwrite", o->overwrite, "replace the file if it exists");
  for (const auto* method : quantize::methods())
    for (const auto& setting : method->settings) {
      const std::string flag = "--" + std::string(setting.name);
      if (app.get_option_no_throw(flag)) continue;  // two methods may share one
      const bool on_off = setting.standard == "on" || setting.standard == "off";
      auto* option = app.add_option_function<std::string>(
          flag,
          [o, name = std::string(setting.name)](const std::string& value) {
            o->settings[name] = value.empty() || value == "true" ? "on" : value;
          },
          fmt::format("{} (default: {})", setting.help, setting.standard));
      option->group(fmt::format("Codec {}", method->name));
      if (on_off) option->expected(0, 1)->type_name("[off]");
    }
  return [o] { return run(*o); };
}

const RegisterCommand registered({"quantize", "write a model again with fewer bits per weight", setup});

}  // namespace
}  // namespace cairn::app
