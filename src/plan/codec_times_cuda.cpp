#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "backends/cuda/ceilings.h"
#include "backends/cuda/df11.h"
#include "backends/cuda/matmul_e4m3.h"
#include "backends/cuda/products.h"
#include "base/error.h"
#include "base/float16.h"
#include "base/steady_seconds.h"
#include "codecs/df11.h"
#include "plan/codec_times.h"

namespace cairn::plan {
namespace {

using namespace cuda;  // NOLINT(google-build-using-namespace)

constexpr int64_t kMostAnswers = 64;         // rows of a product that extend answers; more are of prompts
constexpr size_t kCopies = size_t{1} << 30;  // weights rotate through so much: many times the L2

struct GpuBench {
  const CodecBench& what;
  const Device& device;
  ThreadPool& pool;
  EnergyMeter* meter;
  CodecTimes* to;
  KernelCache kernels{device};
  Stream stream{device};
  Buffer x, y;

  GpuBench(const CodecBench& bench, const Device& d, ThreadPool& p, EnergyMeter* m, CodecTimes* result)
      : what(bench), device(d), pool(p), meter(m), to(result) {
    int64_t most_x = 0, most_y = 0;
    for (const auto& s : what.shapes)
      most_x = std::max(most_x, what.rows.back() * s.k), most_y = std::max(most_y, what.rows.back() * s.n);
    x = Buffer(device, size_t(most_x) * 2), y = Buffer(device, size_t(most_y) * 4);
    std::vector<uint16_t> values(x.size() / 2);
    std::mt19937 random(1);
    for (auto& v : values) v = float_to_bf16(float(int(random() % 2001) - 1000) * 1e-3f);
    stream.upload(x.address(), values.data(), values.size() * 2);
    stream.synchronize();
  }

  // Takes the time of what `product(i)` launches, `copies` to a graph.
  template <typename F>
  void take(CodecTime t, int copies, F&& product) {
    for (int i = 0; i < copies; ++i) product(i);  // compiles what is missing, outside of the graph
    stream.synchronize();
    const auto graph = Graph::capture(stream, [&] {
      for (int i = 0; i < copies; ++i) product(i);
    });
    const auto replay = [&] {
      Event begin(device, true), end(device, true);
      begin.record(stream);
      graph.launch(stream);
      end.record(stream);
      end.synchronize();
      return double(end.since(begin)) * 1e-3 / copies;
    };
    replay();
    std::vector<double> times;
    const double from = meter ? meter->joules() : 0, start = steady_seconds();
    while (times.size() < 5 || steady_seconds() - start < what.seconds) times.push_back(replay());
    if (meter) t.joules = (meter->joules() - from) / double(times.size()) / copies;
    std::nth_element(times.begin(), times.begin() + int64_t(times.size() / 2), times.end());
    t.seconds = times[times.size() / 2];
    to->times.push_back(std::move(t));
  }

  MatMulCall call_of(const DeviceMatrix& w, int64_t rows) const {
    MatMulCall call;
    call.w = &w, call.m = rows, call.x = x.address(), call.y = y.address(), call.y_f32 = true;
    call.alone = rows == 1, call.overlap_previous = rows <= kMostAnswers;
    return call;
  }

  struct Scratch {
    Buffer unpacked, quantized;
    ManyScratch many;
    Scratch(const Device& device, const DeviceMatrix& w, int64_t rows) {
      many.half_bytes = matmul_many_half(w, false);
      if (many.half_bytes) unpacked = Buffer(device, 2 * size_t(many.half_bytes));
      quantized = Buffer(device, size_t(quantized_bytes(rows, w.cols)));
      many.data = unpacked.address(), many.quantized = quantized.address();
    }
  };

  void measure(const codecs::Codec& codec, const WeightShape& shape) {
    const auto file = random_weight(codec, shape);
    codecs::StoredWeight stored;
    stored.codec = codec.id, stored.rows = shape.n, stored.cols = shape.k;
    auto& piece = stored.pieces.emplace_back();
    piece.data = file.data(), piece.bytes = file.size() - 8;
    const size_t bytes = size_t(device_matrix_bytes(codec.id, shape.n, shape.k, 1));
    const int copies = int(std::clamp<size_t>(kCopies / bytes, 3, 64));
    const Buffer memory(device, bytes * size_t(copies));
    MatrixPacker packer(device, stream, pool);
    std::vector<DeviceMatrix> weights;
    weights.push_back(packer.pack(stored, memory.address()));
    packer.finish();
    // A scale a row beside the codes, as published fp8 checkpoints of that kind have it.
    Buffer scales;
    if (codec.id == codecs::CodecId::e4m3_g128) {
      const std::vector<float> ones(size_t(shape.n), 1.f);
      scales = Buffer(device, ones.size() * 4);
      stream.upload(scales.address(), ones.data(), ones.size() * 4);
      weights[0].scales = scales.address();
    }
    for (int c = 1; c < copies; ++c) {
      const Address at = memory.address() + size_t(c) * bytes;
      stream.copy(at, memory.address(), bytes);
      weights.push_back(describe_matrix(stored, at));
      weights.back().scales = scales.address();
    }
    stream.synchronize();
    for (const int64_t rows : what.rows) {
      Scratch scratch(device, weights[0], rows);
      const auto call = call_of(weights[0], rows);
      const bool answers = rows <= kMostAnswers;
      kernels.prepare(product_variants(device.facts(), {&call, 1}, answers, !answers));
      CodecTime t{std::string(codec.name), shape.n, shape.k, rows};
      t.bytes = weights[0].piece_bytes;
      if (!answers && multiplies_e4m3(device.facts(), call)) t.how = "rows quantised to e4m3 too";
      take(std::move(t), copies, [&](int i) {
        const auto c = call_of(weights[size_t(i)], rows);
        multiply(kernels, stream, {&c, 1}, answers ? rows : 0, scratch.many);
      });
    }
  }

  // Decoded to bf16 before each product, as an executor does it block by block.
  void measure_df11(const WeightShape& shape) {
    std::vector<uint16_t> words(size_t(shape.n * shape.k));
    pool.split(int64_t(words.size()), 4096, [&](Range part) {
      std::mt19937 random(unsigned(part.begin) + 1);
      std::normal_distribution<float> d(0, 0.02f);
      for (int64_t i = part.begin; i < part.end; ++i) words[size_t(i)] = float_to_bf16(d(random));
    });
    const std::span<const std::byte> matrices[] = {std::as_bytes(std::span(words))};
    const auto result = codecs::encode_df11(matrices);
    if (!result.encoded) fail(ErrorKind::unsupported, "df11: {}", result.why_not);
    const codecs::Df11Group group(result.encoded->fields(), "random weights");
    const Df11Image image(group);
    std::vector<std::byte> bytes(image.bytes());
    image.write(0, bytes.size(), bytes.data());
    const size_t step = (bytes.size() + 255) / 256 * 256;
    const int copies = int(std::clamp<size_t>(kCopies / step, 3, 16));
    const Buffer memory(device, step * size_t(copies));
    for (int c = 0; c < copies; ++c)
      stream.upload(memory.address() + size_t(c) * step, bytes.data(), bytes.size());
    const Buffer decoded(device, words.size() * 2);
    codecs::StoredWeight stored;
    stored.codec = codecs::CodecId::bf16, stored.rows = shape.n, stored.cols = shape.k;
    auto& piece = stored.pieces.emplace_back();
    piece.data = matrices[0].data(), piece.bytes = matrices[0].size();
    const auto w = describe_matrix(stored, decoded.address());
    stream.synchronize();
    for (const int64_t rows : what.rows) {
      Scratch scratch(device, w, rows);
      const bool answers = rows <= kMostAnswers;
      CodecTime t{"df11", shape.n, shape.k, rows};
      t.bytes = bytes.size(), t.how = "decoded to bf16 before each product";
      take(std::move(t), copies, [&](int i) {
        decode_df11(kernels, stream, image.at(memory.address() + size_t(i) * step), decoded.address());
        auto c = call_of(w, rows);
        c.overlap_previous = false;
        multiply(kernels, stream, {&c, 1}, answers ? rows : 0, scratch.many);
      });
    }
  }
};

}  // namespace

CodecTimes measure_codecs(const CodecBench& what, const Device& device, ThreadPool& pool) {
  CodecTimes result;
  result.machine = device.facts().name;
  result.read_bytes_per_s = measure_read_bandwidth(device).median_gb_per_s * 1e9;
  const auto meter = nvml_meter(device.facts().pci, &result.energy);
  if (meter) result.energy = meter->what(), result.has_energy = true;
  CodecBench plain = what;
  const bool df11 = std::erase(plain.codecs, "df11") > 0 || what.codecs.empty();
  std::vector<const codecs::Codec*> list;
  if (!plain.codecs.empty() || what.codecs.empty()) list = codecs_to_measure(plain);
  GpuBench bench(what, device, pool, meter.get(), &result);
  const auto attempt = [&](const std::string& name, size_t done, auto&& measure) {
    if (what.progress) what.progress(name, done, list.size() + df11);
    for (const auto& shape : what.shapes) {
      try {
        measure(shape);
      } catch (const Error& e) {  // a codec that this GPU or this width has no product for
        if (e.kind() != ErrorKind::unsupported) throw;
        result.left_out.push_back(fmt::format("{}: {}", name, e.what()));
      }
    }
  };
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string name(list[i]->name);
    if (!form_of(list[i]->id))
      result.left_out.push_back(fmt::format("{}: no kernel", name));
    else
      attempt(name, i, [&](const WeightShape& s) { bench.measure(*list[i], s); });
  }
  if (df11) attempt("df11", list.size(), [&](const WeightShape& s) { bench.measure_df11(s); });
  result.read_bytes_per_s =
      std::max(result.read_bytes_per_s, measure_read_bandwidth(device).median_gb_per_s * 1e9);
  if (result.times.empty())
    fail(ErrorKind::invalid_argument, "none of the codecs can be multiplied in these shapes: {}",
         fmt::join(result.left_out, "; "));
  return result;
}

}  // namespace cairn::plan
