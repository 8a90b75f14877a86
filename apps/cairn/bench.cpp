// cairn bench: prefill, decode and depth speed of one model, beside the ceiling measured in the same run.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "backends/cuda/ceilings.h"
#include "base/error.h"
#include "base/steady_seconds.h"
#include "command.h"
#include "engine/engine.h"
#include "model_options.h"
#include "model_path.h"
#include "output.h"
#include "plan/machine.h"
#include "program/launches.h"
#include "program/trace.h"
#include "terminal.h"
#include "text/sampler.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions model;
  std::vector<int64_t> prompts = {512}, answers = {128}, depths = {0};
  int64_t batch = 1, step_tokens = 0;
  std::vector<std::string> draws = {"auto"};
  text::SamplingParams sampling;
  bool exact = false;
  int repetitions = 3;
  std::string trace;
  bool json = false;
};

struct Row {
  std::string test;
  int64_t tokens = 0, depth = 0;
  std::vector<double> seconds;  // per repetition
  program::Work work;           // of one repetition
  uint64_t hash = 0;            // of the last logits: the same build on the same machine gives the same bits
  backends::StepTimes host;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

uint64_t hash_logits(const float* logits, int64_t count) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a over the bytes
  const auto* bytes = reinterpret_cast<const unsigned char*>(logits);
  for (int64_t i = 0; i < count * 4; ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  return hash;
}

// Token ids that look like a prompt to the embedding: spread over the vocabulary, the same in every run.
std::vector<int32_t> random_ids(int64_t count, int64_t vocabulary, uint64_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    seed += 0x9e3779b97f4a7c15u;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    ids.push_back(int32_t((z ^ (z >> 31)) % uint64_t(vocabulary)));
  }
  return ids;
}

class Bench {
 public:
  Bench(engine::Engine& engine, const Options& options) : engine_(engine), options_(options) {}

  Row prefill(int64_t tokens, int64_t depth) {
    Row row{fmt::format("pp{}", tokens), tokens, depth, {}, {}, 0, {}};
    return measure(std::move(row), [&](std::vector<kv::Sequence>& sequences, Row& r) {
      r.work = {};
      const int64_t most = engine_.bounds().tokens;
      for (int64_t done = 0; done < tokens; done += most) {
        const int64_t count = std::min(most, tokens - done);
        count_work(r, count, done + count == tokens ? 1 : 0, depth + done);
      }
      const auto ids = random_ids(tokens, engine_.model().vocabulary_size, 1);
      const auto step = engine_.feed(sequences.front(), ids, 1, depth + tokens, {}, trace());
      r.hash = hash_logits(step.logits, engine_.model().vocabulary_size);
    });
  }

  // draw: as the option.
  Row decode(int64_t tokens, int64_t depth, std::string draw) {
    const int64_t batch = options_.batch;
    if (draw == "auto") draw = engine_.overlaps() && options_.trace.empty() ? "device" : "scores";
    auto name = batch == 1 ? fmt::format("tg{}", tokens) : fmt::format("tg{} x{}", tokens, batch);
    if (options_.draws.size() > 1) name += " " + draw;
    Row row{name, tokens * batch, depth, {}, {}, 0, {}};
    return measure(std::move(row), [&](std::vector<kv::Sequence>& sequences, Row& r) {
      r.work = {};
      std::vector<std::vector<int32_t>> ids;
      for (int64_t b = 0; b < batch; ++b)
        ids.push_back(random_ids(tokens, engine_.model().vocabulary_size, uint64_t(b) + 2));
      if (draw == "device") return decode_drawing(sequences, r, ids, depth);
      auto samplers = make_samplers();
      for (int64_t t = 0; t < tokens; ++t) {
        std::vector<backends::SequenceStep> steps;
        for (int64_t b = 0; b < batch; ++b)
          steps.push_back({&sequences[size_t(b)],
                           0,
                           {&ids[size_t(b)][size_t(t)], 1},
                           1,
                           depth + tokens,
                           backends::RowClass::decode});
        const auto result = engine_.step(steps, trace());
        r.hash = hash_logits(result.logits, 64);
        if (draw == "host" && t + 1 < tokens) {
          const int64_t vocabulary = engine_.model().vocabulary_size;
          std::atomic<int64_t> next{0};
          engine_.pool().run([&](int) {
            for (int64_t b = next++; b < batch; b = next++) {
              auto& sampler = samplers[size_t(b)];
              ids[size_t(b)][size_t(t) + 1] =
                  sampler.sample({result.logits + b * vocabulary, size_t(vocabulary)});
              sampler.accept(ids[size_t(b)][size_t(t) + 1]);
            }
          });
        }
        count_work(r, batch, batch, depth + t);
      }
    });
  }

  program::Trace recorded;

 private:
  std::vector<text::Sampler> make_samplers() const {
    std::vector<text::Sampler> samplers;
    for (int64_t b = 0; b < options_.batch; ++b)
      samplers.emplace_back(options_.sampling, int32_t(engine_.model().vocabulary_size), int(b));
    return samplers;
  }

  // Every step is handed over before the tokens of the one ahead of it are known here.
  void decode_drawing(std::vector<kv::Sequence>& sequences, Row& r,
                      const std::vector<std::vector<int32_t>>& ids, int64_t depth) {
    const int64_t batch = options_.batch, tokens = int64_t(ids.front().size());
    auto samplers = make_samplers();
    const auto finish = [&] {
      const auto result = engine_.finish();
      r.hash = hash_logits(reinterpret_cast<const float*>(result.tokens), batch);
      for (int64_t b = 0; b < batch; ++b) {
        auto& sampler = samplers[size_t(b)];
        sampler.accept(sampler.drawn(result.tokens[b]));
      }
    };
    for (int64_t t = 0; t < tokens; ++t) {
      std::vector<text::Draw> draws(static_cast<size_t>(batch));
      std::vector<backends::SequenceStep> steps(static_cast<size_t>(batch));
      for (size_t b = 0; b < steps.size(); ++b) {
        auto draw = samplers[b].next_draw(t > 0 ? 1 : 0);
        if (!draw || !engine_.draws(*draw))
          fail(ErrorKind::unsupported, "this way to sample is the host's: take --draw host");
        draws[b] = std::move(*draw);
        auto& s = steps[b];
        s.sequence = &sequences[b];
        s.tokens = {ids[b].data(), 1};
        s.logit_rows = 1;
        s.rope_length = depth + tokens;
        s.row_class = backends::RowClass::decode;
        s.draw = &draws[b];
        s.drawn_row = t > 0 ? int64_t(b) : -1;
      }
      engine_.enqueue(steps);
      if (t > 0) finish();
      count_work(r, batch, batch, depth + t);
    }
    finish();
  }

  program::Trace* trace() { return options_.trace.empty() ? nullptr : &recorded; }

  void count_work(Row& row, int64_t tokens, int64_t logits, int64_t context) {
    program::StepSizes sizes;
    sizes.tokens = tokens;
    sizes.logits = logits;
    sizes.context = context;
    sizes.sequences = options_.batch > 1 && tokens == options_.batch ? options_.batch : 1;
    sizes.kv_bytes_per_element_x16 = kv::bytes_per_element_x16(engine_.kv().config());
    row.work += program::work(engine_.program(), sizes);
  }

  // One warm-up, then the repetitions; each starts from a cache of `depth` tokens.
  template <typename F>
  Row measure(Row row, F&& body) {
    std::vector<kv::Sequence> sequences;
    for (int64_t b = 0; b < options_.batch; ++b) sequences.emplace_back(engine_.kv());
    if (row.depth > 0) {
      const auto ids = random_ids(row.depth, engine_.model().vocabulary_size, 7);
      ProgressBar bar("filling the cache", uint64_t(row.depth * options_.batch), ProgressUnit::tokens);
      for (auto& sequence : sequences)
        engine_.feed(sequence, ids, 0, row.depth + row.tokens,
                     [&](int64_t done) { bar.update(uint64_t(done)); });
    }
    backends::StepTimes before;
    for (int i = -1; i < options_.repetitions; ++i) {
      for (auto& sequence : sequences) sequence.truncate(row.depth);
      if (i < 0) recorded.clear();
      const double start = steady_seconds();
      body(sequences, row);
      if (i >= 0) row.seconds.push_back(steady_seconds() - start);
      if (i < 0) before = engine_.times();
    }
    const auto after = engine_.times();
    row.host = {after.steps - before.steps, after.prepare - before.prepare, after.launch - before.launch,
                after.wait - before.wait, after.idle - before.idle};
    return row;
  }

  engine::Engine& engine_;
  const Options& options_;
};

nlohmann::ordered_json as_json(const Row& row, double ceiling_gb) {
  const double seconds = median(row.seconds);
  nlohmann::ordered_json json{
      {"test", row.test},
      {"tokens", row.tokens},
      {"depth", row.depth},
      {"seconds", row.seconds},
      {"median_seconds", seconds},
      {"tokens_per_second", double(row.tokens) / seconds},
      {"gb_per_second", double(row.work.bytes()) / seconds / 1e9},
      {"gflop_per_second", double(row.work.operations) / seconds / 1e9},
      {"share_of_read_bandwidth", double(row.work.bytes()) / seconds / 1e9 / ceiling_gb},
      {"logits_hash", fmt::format("{:016x}", row.hash)}};
  if (row.host.steps > 0)
    json["host_us_per_step"] = {{"prepare", 1e6 * row.host.prepare / double(row.host.steps)},
                                {"launch", 1e6 * row.host.launch / double(row.host.steps)},
                                {"wait", 1e6 * row.host.wait / double(row.host.steps)},
                                {"gpu_idle", 1e6 * row.host.idle / double(row.host.steps)}};
  return json;
}

int run(const Options& options) {
  if (options.repetitions < 1)
    fail(ErrorKind::invalid_argument, "--repetitions is {}; it must be 1 or more", options.repetitions);
  if (options.batch < 1 || options.batch > 4096)
    fail(ErrorKind::invalid_argument, "--batch is {}; it must lie between 1 and 4096", options.batch);
  int64_t longest = 0;
  for (const int64_t depth : options.depths)
    for (const auto* list : {&options.prompts, &options.answers})
      for (const int64_t tokens : *list) {
        if (tokens < 0 || depth < 0)
          fail(ErrorKind::invalid_argument, "lengths and depths must be 0 or more");
        longest = std::max(longest, depth + tokens);
      }
  engine::EngineOptions engine_options;
  engine_options.threads = options.model.load.threads;
  engine_options.kv_form = parse_kv_form(options.model.load.kv);
  engine_options.place = parse_place(options.model.load.device);
  place_layers(options.model.load, engine_options);
  engine_options.exact = options.exact;
  engine_options.step_tokens = options.step_tokens != 0 ? std::max(options.step_tokens, options.batch) : 0;
  engine_options.step_logits = options.batch;
  engine_options.sequences = options.batch;
  auto model = models::open_model(resolve_model(options.model.model));
  engine_options.context = std::max<int64_t>(longest, 1);
  engine_options.cache_tokens = (longest + 32) * options.batch;  // each sequence may waste part of a page
  const double load_start = steady_seconds();
  engine::Engine engine(std::move(model), engine_options);
  engine.measure_idle(true);
  const double load_seconds = steady_seconds() - load_start;

  const auto machine = plan::describe_machine();
  double ceiling = 0;
  std::string device =
      fmt::format("{}, {} threads, {}", machine.cpu, engine.threads(), to_string(active_isa()));
  if (const auto* gpu = engine.gpu()) {
    ceiling = cuda::measure_read_bandwidth(*gpu).median_gb_per_s;
    device = gpu->facts().name;
  } else {
    ceiling =
        plan::measure_read_bandwidth(engine.pool(), plan::bandwidth_test_bytes(machine)).median_gb_per_s;
  }
  Bench bench(engine, options);
  std::vector<Row> rows;
  for (const int64_t depth : options.depths) {
    for (const int64_t tokens : options.prompts)
      if (tokens > 0) rows.push_back(bench.prefill(tokens, depth));
    for (const int64_t tokens : options.answers)
      if (tokens > 0)
        for (const auto& draw : options.draws) rows.push_back(bench.decode(tokens, depth, draw));
  }
  if (!options.trace.empty()) {
    write_chrome_trace(bench.recorded, engine.program(), options.trace);
    fmt::print(stderr, "{}", summarize(bench.recorded, engine.program()));
    const double null_us = engine.gpu() ? cuda::measure_launch_to_start(*engine.gpu()) : 0;
    fmt::print(stderr, "\n{}", program::summarize_launches(bench.recorded, engine.program(), null_us));
  }

  if (options.json) {
    nlohmann::ordered_json json{{"model", engine.model().file},
                                {"family", engine.model().family},
                                {"parameters", engine.model().parameters},
                                {"weight_bytes", engine.memory().weights},
                                {"load_seconds", load_seconds},
                                {"kernels_compiled", engine.kernel_times().compiled},
                                {"kernel_seconds", engine.kernel_times().seconds},
                                {"cpu", machine.cpu},
                                {"instructions", to_string(active_isa())},
                                {"threads", engine.threads()},
                                {"device", device},
                                {"kv", kv::to_string(engine.memory().kv_form)},
                                {"batch", options.batch},
                                {"read_gb_per_second", ceiling},
                                {"version", CAIRN_VERSION}};
    if (const auto& split = engine.memory().split)
      json["split"] = {{"layers", engine.model().layers},
                       {"cpu_layers", split->on_cpu.layers},
                       {"cpu_expert_layers", split->on_cpu.experts},
                       {"gpu_bytes", split->gpu.total()},
                       {"cpu_bytes", split->cpu.total()},
                       {"counted_gpu_gb_per_second", split->speeds.gpu_bytes_per_s / 1e9},
                       {"counted_cpu_gb_per_second", split->speeds.cpu_bytes_per_s / 1e9},
                       {"foreseen_tokens_per_second", split->tokens_per_second}};
    for (const auto& row : rows) json["results"].push_back(as_json(row, ceiling));
    write_out(json.dump(2) + "\n");
    return 0;
  }
  const auto kernels = engine.kernel_times();
  write_out(fmt::format("{}\n{}; weights {}, loaded in {:.2f} s{}; memory read {:.1f} GB/s\n\n",
                        engine.model().file, device, readable_bytes(engine.memory().weights), load_seconds,
                        engine.gpu() ? fmt::format(" (meanwhile {} kernels compiled, ready after {:.2f} s)",
                                                   kernels.compiled, kernels.seconds)
                                     : "",
                        ceiling));
  if (const auto& split = engine.memory().split) write_out(describe(*split) + "\n\n");
  write_out(fmt::format("{:<16}{:>8}{:>12}{:>10}{:>10}{:>12}{:>12}\n", "test", "depth", "tok/s", "spread",
                        "GB/s", "of read", "GFLOP/s"));
  for (const auto& row : rows) {
    const double seconds = median(row.seconds);
    const auto [low, high] = std::minmax_element(row.seconds.begin(), row.seconds.end());
    const double gb = double(row.work.bytes()) / seconds / 1e9;
    write_out(fmt::format("{:<16}{:>8}{:>12.2f}{:>9.1f}%{:>10.2f}{:>11.1f}%{:>12.1f}\n", row.test, row.depth,
                          double(row.tokens) / seconds, 100 * (*high - *low) / seconds, gb,
                          100 * gb / ceiling, double(row.work.operations) / seconds / 1e9));
    if (row.host.steps > 0)
      write_out(fmt::format(
          "{:<14}{:>8}  a step on the host: {:.0f} us preparing, {:.0f} launching, {:.0f} waiting; the GPU "
          "idle "
          "for {:.0f}\n",
          "", "", 1e6 * row.host.prepare / double(row.host.steps),
          1e6 * row.host.launch / double(row.host.steps), 1e6 * row.host.wait / double(row.host.steps),
          1e6 * row.host.idle / double(row.host.steps)));
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  app.add_option("-p,--prompt", o->prompts, "prompt lengths to read (0: none)")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("-n,--tokens", o->answers, "tokens to decode (0: none)")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("-d,--depth", o->depths, "tokens already in the cache")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("-b,--batch", o->batch, "sequences decoded together")->capture_default_str();
  app.add_option("--step", o->step_tokens,
                 "most prompt tokens per step (default: 512 on the CPU, 2048 on a GPU)")
      ->check(CLI::Range(1, 65536));
  app.add_option("-r,--repetitions", o->repetitions, "runs of each test")->capture_default_str();
  app.add_option("--draw", o->draws,
                 "who draws a step's tokens: nobody (fixed tokens, scores copied to the host), the host, the "
                 "device with steps overlapping; auto: the device where it can, else nobody")
      ->check(CLI::IsMember({"auto", "scores", "host", "device"}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--temp", o->sampling.temperature, "temperature of what is drawn")->capture_default_str();
  app.add_option("--top-k", o->sampling.top_k, "of what is drawn")->capture_default_str();
  app.add_option("--top-p", o->sampling.top_p, "of what is drawn")->capture_default_str();
  app.add_option("--trace", o->trace, "write a Chrome/Perfetto trace and print a summary by instruction");
  app.add_flag("--exact", o->exact, "f32 arithmetic throughout (on a GPU: the plain kernels)");
  app.add_flag("--json", o->json, "machine-readable output");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"bench", "measure prefill and decode speed beside the machine's ceiling",
                                  setup});

}  // namespace
}  // namespace cairn::app
