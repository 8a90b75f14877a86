#include "plan/codec_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "backends/cpu/ceilings.h"
#include "backends/cpu/matmul.h"
#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/steady_seconds.h"
#include "plan/machine.h"

namespace cairn::plan {
namespace {

// Weights rotate through so much memory, or a quarter of what is free: more than caches hold.
constexpr size_t kMostMemory = size_t{1} << 30;
constexpr double kSteady = 1.15;  // between two measurements of a ceiling on a machine that is left alone

struct CpuBench {
  const CodecBench& what;
  ThreadPool& pool;
  AlignedBuffer weights;
  EnergyMeter* meter;
  CodecTimes* to;

  bool measure(const codecs::Codec& codec, const WeightShape& shape) {
    const auto* kernel = cpu::matmul_kernel(codec.id, active_isa(), shape.k);
    if (!kernel) return false;
    const auto [n, k] = shape;
    const size_t bytes = kernel->packed_bytes(n, k), step = (bytes + 4095) / 4096 * 4096;
    if (step > weights.size())
      fail(ErrorKind::out_of_memory, "a weight of {} x {} in {} takes {} bytes and the bench may take {}", n,
           k, codec.name, bytes, weights.size());
    const auto copies = int64_t(weights.size() / step);
    const auto file = random_weight(codec, shape);
    pool.split(cpu::panels_of(n), 1,
               [&](Range part) { kernel->pack(file.data(), n, k, part, weights.data()); });
    for (int64_t c = 1; c < copies; c++)
      std::memcpy(weights.data() + size_t(c) * step, weights.data(), bytes);
    AlignedBuffer scratch((kernel->scratch_bytes + 64) * size_t(pool.size()));
    const size_t scratch_step = scratch.size() / size_t(pool.size()) / 64 * 64;
    for (const int64_t rows : what.rows) {
      std::vector<float> x(size_t(rows * k));
      std::mt19937 random(1);
      for (auto& v : x) v = float(int(random() % 2001) - 1000) * 1e-3f;
      AlignedBuffer act(kernel->act_bytes(rows, k)), y(size_t(rows * n) * sizeof(float));
      const auto product = [&](int64_t i) {
        pool.split(rows, 1, [&](Range part) { kernel->prepare(x.data(), k, part, k, act.data()); });
        pool.run([&](int thread) {
          cpu::MatMulArgs args;
          args.packed = weights.data() + size_t(i % copies) * step;
          args.cols = k;
          args.act = act.data();
          args.m = rows;
          args.panels = split_range(cpu::panels_of(n), thread, pool.size());
          args.y = reinterpret_cast<float*>(y.data());
          args.ldy = args.n_valid = n;
          args.scratch = scratch.data() + size_t(thread) * scratch_step;
          if (!args.panels.empty()) kernel->multiply(args);
        });
      };
      product(0);  // pages of the result, the clock
      std::vector<double> times;
      const double from = meter ? meter->joules() : 0, start = steady_seconds();
      for (int64_t i = 1; times.size() < 3 || steady_seconds() - start < what.seconds; i++) {
        const double begin = steady_seconds();
        product(i);
        times.push_back(steady_seconds() - begin);
      }
      CodecTime t{std::string(codec.name), n, k, rows};
      t.joules = meter ? (meter->joules() - from) / double(times.size()) : 0;
      std::nth_element(times.begin(), times.begin() + int64_t(times.size() / 2), times.end());
      t.seconds = times[times.size() / 2];
      t.bytes = bytes;
      to->times.push_back(std::move(t));
    }
    return true;
  }
};

bool apart(double a, double b) { return std::max(a, b) > kSteady * std::min(a, b); }

bool holds_weights(const codecs::Codec& c) {
  using enum codecs::CodecId;
  return c.decode && c.id != f32 && c.id != f64 && c.id != i8 && c.id != i16 && c.id != i32 && c.id != i64 &&
         c.id != u8 && c.id != e4m3;  // e4m3 without scales is a part of e4m3_g128
}

}  // namespace

std::vector<std::byte> random_weight(const codecs::Codec& codec, const WeightShape& shape) {
  const auto row = codecs::row_bytes(codec, uint64_t(shape.k));
  std::vector<std::byte> bytes(size_t(row.value_or(0)) * size_t(shape.n) + 8);
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const uint64_t value = (state & 0x1f1f1f1f1f1f1f1fu) | 0x2020202020202020u;
    std::memcpy(bytes.data() + i, &value, 8);
  }
  return bytes;
}

std::vector<const codecs::Codec*> codecs_to_measure(const CodecBench& what) {
  std::vector<const codecs::Codec*> list;
  for (const auto& name : what.codecs) {
    const auto* codec = codecs::find_codec(name);
    if (!codec || !holds_weights(*codec)) {
      std::string known;
      for (const auto& c : codecs::all_codecs())
        if (holds_weights(c)) known += fmt::format("{}{}", known.empty() ? "" : ", ", c.name);
      fail(ErrorKind::invalid_argument, "no products with weights of '{}'; known are {}", name, known);
    }
    list.push_back(codec);
  }
  if (list.empty())
    for (const auto& c : codecs::all_codecs())
      if (holds_weights(c)) list.push_back(&c);
  return list;
}

CodecTimes measure_codecs(const CodecBench& what, ThreadPool& pool) {
  CodecTimes result;
  const auto machine = describe_machine();
  result.machine = fmt::format("{}, {} thread{}, {}", machine.cpu.empty() ? "CPU" : machine.cpu, pool.size(),
                               pool.size() == 1 ? "" : "s", to_string(active_isa()));
  const size_t memory =
      std::min(kMostMemory, size_t(machine.memory.available ? machine.memory.available / 4 : kMostMemory));
  const auto ceilings = [&] {
    return std::pair(measure_read_bandwidth(pool, memory).median_gb_per_s * 1e9,
                     cpu::peak_bf16(pool, active_isa()));
  };
  const auto before = ceilings();
  const auto meter = rapl_meter(&result.energy);
  if (meter) result.energy = meter->what(), result.has_energy = true;
  CpuBench bench{what, pool, AlignedBuffer(memory), meter.get(), &result};
  std::memset(bench.weights.data(), 1, bench.weights.size());
  const auto list = codecs_to_measure(what);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string name(list[i]->name);
    const bool fits = std::any_of(what.shapes.begin(), what.shapes.end(), [&](const WeightShape& s) {
      return cpu::matmul_kernel(list[i]->id, active_isa(), s.k) != nullptr;
    });
    if (what.progress && fits) what.progress(name, i, list.size());
    for (const auto& shape : what.shapes)
      if (!bench.measure(*list[i], shape))
        result.left_out.push_back(fmt::format("{}: no kernel for {} columns", name, shape.k));
  }
  const auto after = ceilings();
  result.read_bytes_per_s = std::max(before.first, after.first);
  result.operations_per_s = std::max(before.second, after.second);
  if (apart(before.first, after.first) || apart(before.second, after.second))
    result.unsteady = fmt::format(
        "before the products this machine read {:.1f} GB/s and multiplied at {:.0f} GOP/s, after them {:.1f} "
        "and "
        "{:.0f}: something else ran beside them",
        before.first * 1e-9, before.second * 1e-9, after.first * 1e-9, after.second * 1e-9);
  if (what.codecs.empty()) result.left_out.push_back("df11: on the CPU it is bf16 once it is loaded");
  if (result.times.empty())
    fail(ErrorKind::invalid_argument, "none of the codecs can be multiplied in these shapes: {}",
         fmt::join(result.left_out, "; "));
  return result;
}

}  // namespace cairn::plan
