// The units that compute, and the shared memory of a cluster.
#include <array>

#include "backends/cuda/probe_session.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

// As kernels/probe.cuh numbers them.
struct Type {
  const char* name;
  int number;
  int k;          // of 32 bytes
  int per_clock;  // operations per clock and multiprocessor of Hopper's wgmma, dense
};
constexpr Type kTypes[] = {{"bf16", 0, 16, 4096},
                           {"f16", 1, 16, 4096},
                           {"tf32", 2, 8, 2048},
                           {"fp8 e4m3", 3, 32, 8192},
                           {"int8", 4, 32, 8192}};
constexpr int kWidths[] = {8, 16, 32, 64, 128, 256};

Variant mma_variant(const Type& t, int chains, bool half_sum = false) {
  return {"probe_matrix.cu",
          {fmt::format("TYPE={}", t.number), fmt::format("CHAINS={}", chains),
           fmt::format("HALF_SUM={}", int(half_sum))}};
}
Variant wgmma_variant(const Type& t, int n, bool registers) {
  return {"probe_matrix_sm90.cu",
          {fmt::format("TYPE={}", t.number), fmt::format("N={}", n),
           fmt::format("REGISTERS={}", int(registers))}};
}
Variant dpx_variant(int operation) { return {"probe_dpx.cu", {fmt::format("OPERATION={}", operation)}}; }

// On Hopper mma.sync of e4m3 is made of conversions and f16 products.
bool has_mma(const Type& t, int capability) { return t.number != 3 || capability == 89 || capability >= 100; }

// With operands of ones every sum is known: what was timed was the product that its name says.
template <typename T>
void check_sums(ProbeSession& s, const Buffer& sums, size_t count, double expected, const std::string& what) {
  std::vector<T> values(count);
  s.stream.download(values.data(), sums.address(), count * sizeof(T));
  s.stream.synchronize();
  for (const T v : values)
    if (double(v) != expected)
      fail(ErrorKind::io, "the probe '{}' computed {} where {} is right: its time means nothing", what, v,
           expected);
}

constexpr Variant (*kClusterVariant)() = +[] { return Variant{"probe_cluster.cu", {}}; };

}  // namespace

std::vector<Variant> probe_matrix_variants(int capability) {
  std::vector<Variant> all;
  for (const auto& t : kTypes)
    if (has_mma(t, capability)) all.push_back(mma_variant(t, 1)), all.push_back(mma_variant(t, 8));
  all.push_back(mma_variant(kTypes[1], 8, true));
  return all;
}
std::vector<Variant> probe_matrix_sm90_variants(int capability) {
  std::vector<Variant> all;
  if (capability != 90) return all;
  for (const auto& t : kTypes)
    for (const int n : kWidths) all.push_back(wgmma_variant(t, n, false));
  for (const int n : kWidths) all.push_back(wgmma_variant(kTypes[0], n, true));
  return all;
}
std::vector<Variant> probe_cluster_variants(int capability) {
  return capability < 90 ? std::vector<Variant>{} : std::vector<Variant>{kClusterVariant()};
}
std::vector<Variant> probe_dpx_variants(int) {
  return {dpx_variant(0), dpx_variant(1), dpx_variant(2), dpx_variant(3)};
}

void probe_matrix(ProbeSession& s) {
  const unsigned sms = s.multiprocessors();
  Buffer sums(s.device, size_t{sms} * 4 * 512 * 4);
  LaunchShape shape;
  // mma.sync: 16 warps per multiprocessor, 8 independent sums each; one warp and one sum for the latency.
  const auto mma = [&](const Type& t, bool half_sum, const std::string& name) {
    const auto kernel = s.kernels.get(mma_variant(t, 8, half_sum), "multiply_mma");
    const uint32_t rounds = 8192, few = 64;
    shape = {}, shape.grid[0] = sms, shape.block = 512;
    s.stream.launch(kernel, shape, few, uint32_t{0}, s.out.address(), sums.address());
    if (!half_sum) {
      if (t.number == 4)
        check_sums<int32_t>(s, sums, size_t{sms} * 512, few * t.k, name);
      else
        check_sums<float>(s, sums, size_t{sms} * 512, few * t.k, name);
    }
    const double operations = 2.0 * 16 * 8 * t.k * 8 * rounds * 16;  // per multiprocessor
    std::vector<double> rates;
    for (const double t_s : s.seconds(
             [&] { s.stream.launch(kernel, shape, rounds, uint32_t{1}, s.out.address(), sums.address()); }))
      rates.push_back(operations * sms / t_s * 1e-12);
    const double per_clock = operations / s.block_cycles(sms);
    auto& row = s.add("matrix", "mma.sync " + name, rates, t.number == 4 ? "TOP/s" : "TFLOP/s");
    row.note = fmt::format("{:.0f} per clock and SM", per_clock);
    if (half_sum) return;
    shape.grid[0] = 1, shape.block = 32;
    s.stream.launch(s.kernels.get(mma_variant(t, 1), "multiply_mma"), shape, rounds, uint32_t{1},
                    s.out.address(), sums.address());
    row.note += fmt::format(", latency {:.1f} cycles", s.block_cycles(1) / rounds);
  };
  for (const auto& t : kTypes) {
    if (!has_mma(t, s.facts().capability)) {
      s.skip("matrix", fmt::format("mma.sync {}", t.name),
             s.facts().capability == 90 ? "only wgmma has it here" : "needs sm_89");
      continue;
    }
    mma(t, false, t.name);
    if (t.number == 1) mma(t, true, "f16, sums in f16");
  }
  if (s.facts().capability != 90) {
    for (const auto& t : kTypes) s.skip("matrix", fmt::format("wgmma {}", t.name), "needs sm_90a");
    return;
  }
  for (const bool registers : {false, true})
    for (const auto& t : kTypes) {
      if (registers && t.number != 0) continue;
      const std::string series = fmt::format("{}{}", t.name, registers ? ", A in registers" : "");
      for (const int n : kWidths) {
        const std::string what = fmt::format("wgmma {}, N = {}", series, n);
        const auto kernel = s.kernels.get(wgmma_variant(t, n, registers), "multiply_wgmma");
        shape = {};
        shape.block = 256;
        shape.shared_bytes = unsigned(n * 128 + 2 * 64 * 128 + 1024);
        // Few sums per thread leave room for two blocks: more warpgroups in flight.
        const unsigned blocks = n <= 64 ? 2 : 1;
        shape.grid[0] = sms * blocks;
        s.stream.launch(kernel, shape, uint32_t{2}, uint32_t{4}, uint32_t{0}, s.out.address(),
                        sums.address());
        if (t.number == 4)
          check_sums<int32_t>(s, sums, size_t{sms} * blocks * 256, 8 * t.k, what);
        else
          check_sums<float>(s, sums, size_t{sms} * blocks * 256, 8 * t.k, what);
        const auto together = uint32_t(n >= 128 ? 32 : 64),
                   rounds = uint32_t(128 * 256 / n / (together / 32));
        const double operations = 2.0 * 64 * n * t.k * together * rounds * 2 * blocks;  // per multiprocessor
        std::vector<double> rates;
        for (const double t_s : s.seconds([&] {
               s.stream.launch(kernel, shape, rounds, together, uint32_t{1}, s.out.address(), sums.address());
             }))
          rates.push_back(operations * sms / t_s * 1e-12);
        const double per_clock = operations / s.block_cycles(sms * blocks);
        auto& row = s.add("matrix", what, rates, t.number == 4 ? "TOP/s" : "TFLOP/s");
        // Clocks sink under this load: the share of the peak is counted in clocks.
        row.note = fmt::format("{:.0f} per clock and SM, {:.0f} % of {}", per_clock,
                               100 * per_clock / t.per_clock, t.per_clock);
        shape.grid[0] = 1, shape.block = 128;
        s.stream.launch(kernel, shape, uint32_t{256}, uint32_t{32}, uint32_t{1}, s.out.address(),
                        sums.address());
        const double some = s.block_cycles(1) / 256;
        s.stream.launch(kernel, shape, uint32_t{256}, uint32_t{64}, uint32_t{1}, s.out.address(),
                        sums.address());
        const double twice = s.block_cycles(1) / 256;
        row.note += fmt::format(", one warpgroup alone {:.1f} cycles each", (twice - some) / 32);
        s.point("wgmma, all multiprocessors", "N", t.number == 4 ? "TFLOP/s" : "TFLOP/s", series, n,
                row.value);
      }
    }
}

void probe_units(ProbeSession& s) {
  struct Unit {
    const char* name;
    int kind;
    double operations;  // of one instruction
  };
  constexpr Unit kUnits[] = {
      {"f32 fma", 0, 2}, {"f64 fma", 1, 2}, {"f16 pair fma", 2, 4}, {"s32 multiply-add", 3, 2}};
  const unsigned sms = s.multiprocessors();
  const auto kernel = s.kernels.get(mma_variant(kTypes[0], 8), "multiply_add");
  Buffer sums(s.device, size_t{sms} * 2 * 1024 * 4);
  for (const auto& unit : kUnits) {
    const uint32_t rounds = 4096;
    LaunchShape shape;
    shape.grid[0] = sms, shape.block = 1024;
    const double instructions = 8.0 * rounds * 1024;
    const auto seconds = s.seconds([&] {
      s.stream.launch(kernel, shape, rounds, uint32_t(unit.kind), uint32_t{8}, 0.5f, s.out.address(),
                      sums.address());
    });
    std::vector<double> rates;
    for (const double t : seconds) rates.push_back(instructions * unit.operations * sms / t * 1e-12);
    const double cycles = s.block_cycles(sms);
    auto& row = s.add("units", unit.name, rates, unit.kind == 3 ? "TOP/s" : "TFLOP/s");
    row.note = fmt::format("{:.0f} instructions per clock and SM", instructions / cycles);
    if (unit.kind == 0) s.report.clock_ghz = cycles / median_of(seconds) * 1e-9;
    shape.grid[0] = 1, shape.block = 32;
    s.stream.launch(kernel, shape, rounds, uint32_t(unit.kind), uint32_t{1}, 0.5f, s.out.address(),
                    sums.address());
    row.note += fmt::format(", latency {:.1f} cycles", s.block_cycles(1) / rounds);
  }
}

void probe_cluster(ProbeSession& s) {
  if (!s.hopper()) {
    s.skip("cluster", "shared memory of other blocks", "needs sm_90");
    return;
  }
  const auto walk = s.kernels.get(kClusterVariant(), "walk_cluster");
  const auto read = s.kernels.get(kClusterVariant(), "read_cluster");
  for (const auto& kernel : {walk, read})  // clusters of more than 8 blocks are this device's own
    driver::check(
        driver::api().function_set_attribute(kernel.function, driver::kFunctionNonPortableCluster, 1),
        "allowing large clusters");
  constexpr uint32_t kSteps = 4096;
  for (const unsigned size : {2u, 4u, 8u, 16u}) {
    LaunchShape shape;
    shape.grid[0] = shape.cluster = size;
    shape.shared_bytes = 16 << 10;
    std::vector<double> own, others;
    for (int i = 0; i < s.repetitions; ++i) {
      s.stream.launch(walk, shape, uint32_t{4096}, kSteps, size, s.out.address());
      const auto result = s.read_out(2 * size);
      own.push_back(double(result[0]) / kSteps);
      std::vector<double> remote;
      for (unsigned r = 1; r < size; ++r) remote.push_back(double(result[2 * r]) / kSteps);
      others.push_back(median_of(remote));
      if (i + 1 == s.repetitions) {
        const auto [low, high] = std::minmax_element(remote.begin(), remote.end());
        auto& row = s.add("cluster", fmt::format("latency of another block's memory, {} blocks", size),
                          others, "cycles");
        row.low = 160, row.high = 240;
        row.note =
            fmt::format("{:.0f} to {:.0f} by block; its own by this way {:.0f}", *low, *high, median_of(own));
      }
    }
  }
  constexpr std::array<const char*, 4> kPatterns = {"own memory", "ring", "pairs", "all from one"};
  for (uint32_t pattern = 0; pattern < kPatterns.size(); ++pattern)
    for (const unsigned size : {2u, 4u, 8u, 16u}) {
      LaunchShape shape;
      shape.grid[0] = s.multiprocessors() / size * size, shape.cluster = size;
      shape.block = 1024;
      const uint32_t words = 8192, rounds = 64;
      shape.shared_bytes = words * 16;
      std::vector<double> rates;
      for (int i = 0; i < s.repetitions; ++i) {
        s.stream.launch(read, shape, words, rounds, size, pattern, s.out.address());
        rates.push_back(double(words) * 16 * rounds / s.block_cycles(shape.grid[0]));
      }
      s.add("cluster", fmt::format("reading {}, {} blocks", kPatterns[pattern], size), rates, "B/clk/SM");
      s.point("shared memory of a cluster", "blocks in the cluster", "bytes per clock and SM",
              kPatterns[pattern], size, median_of(rates));
    }
}

void probe_bulk(ProbeSession& s) {
  if (!s.hopper()) {
    s.skip("bulk", "bulk copies to shared memory", "needs sm_90");
    return;
  }
  const auto copy = s.kernels.get(kClusterVariant(), "copy_bulk");
  const unsigned sms = s.multiprocessors();
  for (const unsigned per_sm : {1u, 2u})
    for (uint32_t bytes = 256; bytes <= 16384; bytes *= 2) {
      LaunchShape shape;
      shape.grid[0] = sms * per_sm, shape.block = 32;
      const uint32_t stages = std::min<uint32_t>(32, uint32_t(96 << 10) / bytes);
      shape.shared_bytes = stages * bytes + 128;
      const uint64_t part =
          std::min<uint64_t>(s.data.size() / shape.grid[0], uint64_t{1} << 20 << (bytes >= 2048 ? 3 : 0)) &
          ~uint64_t{16383};
      std::vector<double> rates;
      for (const double t : s.seconds(
               [&] { s.stream.launch(copy, shape, s.data.address(), part, bytes, stages, s.out.address()); }))
        rates.push_back(double(part) * shape.grid[0] / t * 1e-9);
      s.point("bulk copies from global memory", "bytes per copy", "GB/s",
              fmt::format("{} blocks", shape.grid[0]), bytes, median_of(rates));
      if (bytes == 1024 || bytes == 4096 || bytes == 16384)
        s.add("bulk", fmt::format("copies of {} bytes, {} blocks", bytes, shape.grid[0]), rates, "GB/s")
            .note = fmt::format("{} in flight each", stages);
    }
  const auto time = s.kernels.get(kClusterVariant(), "time_bulk");
  struct Place {
    const char* name;
    uint32_t places;
    uint64_t stride;
  };
  const auto far = uint64_t{64} << 10;
  for (const auto& place :
       {Place{"same bytes (L2)", 1, 0}, Place{"far places (global)", uint32_t(s.data.size() / far), far}}) {
    std::vector<double> all;
    for (int i = 0; i < s.repetitions; ++i) {
      LaunchShape shape;
      shape.block = 32, shape.shared_bytes = 4096;
      const uint32_t times = 1024, bytes = 128;
      s.stream.launch(time, shape, s.data.address(), bytes, place.stride, place.places,
                      uint32_t(i) * 2 * times, times, s.out.address());
      all.push_back(double(s.read_out(1)[0]) / times);
    }
    s.add("bulk", fmt::format("latency of a copy of 128 bytes, {}", place.name), all, "cycles");
  }
}

void probe_dpx(ProbeSession& s) {
  constexpr std::array<const char*, 4> kNames = {"max(a, b, c, 0) of s32", "max(a + b, c) of s32",
                                                 "max(a + b, c, 0) of pairs of s16",
                                                 "max(a, b, c, 0) of pairs of s16"};
  const unsigned sms = s.multiprocessors();
  Buffer sums(s.device, size_t{sms} * 1024 * 4);
  for (int operation = 0; operation < int(kNames.size()); ++operation) {
    const auto kernel = s.kernels.get(dpx_variant(operation), "add_max");
    LaunchShape shape;
    shape.grid[0] = sms, shape.block = 1024;
    const uint32_t rounds = 4096, b = 3, c = 0x00050007;
    std::vector<double> rates;
    for (int i = 0; i < s.repetitions; ++i) {
      s.stream.launch(kernel, shape, rounds, uint32_t{0}, b, c, s.out.address(), sums.address());
      rates.push_back(8.0 * rounds * 1024 / s.block_cycles(sms));
    }
    auto& row = s.add("dpx", kNames[size_t(operation)], rates, "per clk/SM");
    shape.grid[0] = 1, shape.block = 32;
    s.stream.launch(kernel, shape, rounds, uint32_t{1}, b, c, s.out.address(), sums.address());
    row.note = fmt::format("latency {:.1f} cycles{}", s.block_cycles(1) / rounds,
                           s.hopper() ? "" : "; several instructions on this device");
    if (s.hopper()) row.low = 45, row.high = 66;
  }
}

}  // namespace cairn::cuda
