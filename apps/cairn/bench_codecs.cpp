// cairn bench codecs: how long products with each codec's weights take on this machine, and where fewer bits
// are slower.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>
#include <span>

#include "backends/cuda/device.h"
#include "backends/cuda/registry.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "command.h"
#include "output.h"
#include "plan/codec_report.h"
#include "plan/codec_times.h"

namespace cairn::app {
namespace {

struct Options {
  std::vector<std::string> codecs, shapes = {"4096x4096", "4096x14336"};
  std::vector<int64_t> rows;
  std::string device = "cpu", plot, json;
  int threads = 0, gpu = 0;
  double seconds = 0.3;
};

constexpr int64_t kMostSide = 1 << 20, kMostRows = 1 << 16;

plan::WeightShape shape_of(const std::string& text) {
  plan::WeightShape s;
  const char* const end = text.data() + text.size();
  const auto n = std::from_chars(text.data(), end, s.n);
  if (n.ec == std::errc() && n.ptr != end && *n.ptr == 'x') {
    const auto k = std::from_chars(n.ptr + 1, end, s.k);
    if (k.ec == std::errc() && k.ptr == end && s.n > 0 && s.k > 0 && s.n <= kMostSide && s.k <= kMostSide)
      return s;
  }
  fail(ErrorKind::invalid_argument,
       "--shapes: '{}' is no shape of a weight; write rows x columns from 1 to {}, as 4096x14336", text,
       kMostSide);
}

int run(const Options& options) {
  plan::CodecBench bench;
  bench.codecs = options.codecs;
  for (const auto& s : options.shapes) bench.shapes.push_back(shape_of(s));
  const bool gpu = options.device == "cuda";
  bench.rows = !options.rows.empty() ? options.rows
               : gpu                 ? std::vector<int64_t>{1, 8, 32, 2048}
                                     : std::vector<int64_t>{1, 8, 32, 512};
  std::sort(bench.rows.begin(), bench.rows.end());
  bench.rows.erase(std::unique(bench.rows.begin(), bench.rows.end()), bench.rows.end());
  bench.seconds = options.seconds;
  bench.progress = [](const std::string& codec, size_t done, size_t all) {
    fmt::print(stderr, "measuring {} ({} of {})\n", codec, done + 1, all);
  };
  ThreadPool pool(options.threads);
  plan::CodecTimes times;
  if (gpu) {
    const cuda::Device device(options.gpu);
    cuda::require_kernel_source(device.facts());
    times = plan::measure_codecs(bench, device, pool);
  } else {
    times = plan::measure_codecs(bench, pool);
  }
  const auto write = [](const std::string& path, const std::string& content) {
    if (!path.empty()) write_file_atomically(path, std::as_bytes(std::span(content)));
  };
  write_out(plan::codec_table(times));
  write(options.json, plan::codec_json(times));
  write(options.plot, plan::codec_plot(times));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("--codecs", o->codecs, "which, as bf16,q4_k,bcq3_g128,df11; all without it")->delimiter(',');
  app.add_option("--shapes", o->shapes, "of the weights, rows x columns")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--rows", o->rows,
                 "of what is multiplied with them; without it 1,8,32 and 512 or, on a GPU, 2048")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMostRows));
  app.add_option("--device", o->device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--gpu", o->gpu, "which GPU")->capture_default_str();
  app.add_option("-t,--threads", o->threads, "0: every usable core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--seconds", o->seconds, "for each product; energy counters need half a second on a GPU")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  app.add_option("--json", o->json, "write the figures as a JSON file");
  app.add_option("--plot", o->plot, "write a picture as an SVG file");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"bench codecs",
                                  "time products with each codec's weights; where fewer bits are slower",
                                  setup});

}  // namespace
}  // namespace cairn::app
