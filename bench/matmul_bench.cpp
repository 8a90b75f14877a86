// Times the matmul kernels against this machine's ceilings.
//   matmul_bench [--codecs bf16,q8_0,..] [--rows 1,8,512] [--threads 1,2] [--shapes KxN,..] [--isa amx]
// Per line: time of one product (left side prepared and multiplied), GB/s of weights, GOP/s, the fraction of
// the ceiling that binds (read bandwidth up to 16 rows, peak of the instruction above), a hash of the result.
// Weights rotate through at least a gigabyte, more than any cache holds.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/matmul.h"
#include "base/aligned_buffer.h"
#include "base/float16.h"
#include "ceilings.h"
#include "codecs/codec.h"

namespace {

using namespace cairn;
using Clock = std::chrono::steady_clock;

std::vector<std::string> list(const std::string& text) {
  std::vector<std::string> items(1);
  for (const char c : text) {
    if (c == ',')
      items.emplace_back();
    else
      items.back() += c;
  }
  return items;
}

// Any bytes are legal integers; every 16-bit word is kept below f16's infinity, whatever field it falls into,
// and every 32-bit one far above f32's subnormal numbers, which processors multiply a hundred times slower.
std::vector<std::byte> random_file(size_t bytes) {
  std::vector<std::byte> file(bytes + 8);
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i < bytes; i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const uint64_t value = (state & 0x1f1f1f1f1f1f1f1fu) | 0x2020202020202020u;
    std::memcpy(file.data() + i, &value, 8);
  }
  return file;
}

struct Ceilings {
  double bandwidth, f32, bf16, int8;
};

void measure(codecs::CodecId id, Isa isa, int64_t k, int64_t n, const std::vector<int64_t>& rows,
             ThreadPool& pool, const Ceilings& top, AlignedBuffer& weights) {
  const cpu::MatMulKernel* kernel = cpu::matmul_kernel(id, isa, k);
  if (!kernel) return;
  const codecs::Codec& codec = codecs::codec(id);
  const size_t bytes = (kernel->packed_bytes(n, k) + 4095) / 4096 * 4096;
  const auto copies = int64_t(weights.size() / bytes);
  const std::vector<std::byte> file = random_file(size_t(n * k / codec.block_elements * codec.block_bytes));
  const int64_t panels = cpu::panels_of(n);
  auto start = Clock::now();
  pool.split(panels, 1, [&](Range part) { kernel->pack(file.data(), n, k, part, weights.data()); });
  const double pack_s = std::chrono::duration<double>(Clock::now() - start).count();
  for (int64_t c = 1; c < copies; c++) std::memcpy(weights.data() + size_t(c) * bytes, weights.data(), bytes);
  fmt::print("{} {} k {} n {} threads {}: pack {:.2f} GB/s\n", codec.name, to_string(kernel->isa), k, n,
             pool.size(), double(file.size()) / pack_s * 1e-9);

  AlignedBuffer scratch((kernel->scratch_bytes + 64) * size_t(pool.size()));
  const size_t scratch_step = scratch.size() / size_t(pool.size()) / 64 * 64;
  for (const int64_t m : rows) {
    std::vector<float> x(size_t(m * k));
    AlignedBuffer result(size_t(m * n) * sizeof(float));
    const std::span<float> y(reinterpret_cast<float*>(result.data()), size_t(m * n));
    std::mt19937 rng(1);
    for (float& v : x) v = float(int(rng() % 2001) - 1000) * 1e-3f;
    AlignedBuffer act(kernel->act_bytes(m, k));
    std::vector<double> times;
    double total = 0;
    for (int64_t i = 0; (total < 0.6 || i < 3) && i < 4000; i++) {
      start = Clock::now();
      pool.split(m, 1, [&](Range part) { kernel->prepare(x.data(), k, part, k, act.data()); });
      pool.run([&](int thread) {
        cpu::MatMulArgs args;
        args.packed = weights.data() + size_t(i % copies) * bytes;
        args.cols = k;
        args.act = act.data();
        args.m = m;
        args.panels = split_range(panels, thread, pool.size());
        args.y = y.data();
        args.ldy = n;
        args.n_valid = n;
        args.scratch = scratch.data() + size_t(thread) * scratch_step;
        if (!args.panels.empty()) kernel->multiply(args);
      });
      times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
      total += times.back();
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    uint64_t hash = 1469598103934665603u;
    for (const float v : y) {
      uint32_t u;
      std::memcpy(&u, &v, 4);
      hash = (hash ^ u) * 1099511628211u;
    }
    const double rate = 2.0 * double(m) * double(k) * double(n) / median;
    const double bandwidth = double(bytes) / median;
    const bool floats = kernel->act == cpu::ActForm::f32 || kernel->act == cpu::ActForm::signed_sums;
    const double peak = floats ? top.f32 : kernel->act == cpu::ActForm::bf16 ? top.bf16 : top.int8;
    fmt::print(
        "  m {:4d}  {:9.1f} us (best {:9.1f})  {:5.1f} GB/s  {:7.1f} GOP/s  {:4.0f}% of {}  hash {:016x}\n",
        m, median * 1e6, times[0] * 1e6, bandwidth * 1e-9, rate * 1e-9,
        100 * (m <= 16 ? bandwidth / top.bandwidth : rate / peak), m <= 16 ? "bandwidth" : "peak", hash);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string names = "bf16,q8_0,q4_k,q6_k", rows_text = "1,8,512", threads_text = "1,2";
  std::string shapes = "2048x2048,2048x512,2048x8192,8192x2048,2048x128256", level;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--codecs")
      names = argv[i + 1];
    else if (flag == "--rows")
      rows_text = argv[i + 1];
    else if (flag == "--threads")
      threads_text = argv[i + 1];
    else if (flag == "--shapes")
      shapes = argv[i + 1];
    else if (flag == "--isa")
      level = argv[i + 1];
    else {
      fmt::print(stderr, "matmul_bench: unknown flag {}\n", flag);
      return 2;
    }
  }
  Isa isa = active_isa();
  for (int i = 0; i <= int(detect_isa()); i++)
    if (to_string(Isa(i)) == level) isa = Isa(i);
  std::vector<int64_t> rows;
  for (const std::string& r : list(rows_text)) rows.push_back(std::atoll(r.c_str()));
  AlignedBuffer weights(size_t{1200} << 20);
  std::memset(weights.data(), 1, weights.size());
  for (const std::string& t : list(threads_text)) {
    ThreadPool pool(std::atoi(t.c_str()));
    const Ceilings top = {bench::read_bandwidth(pool, weights.data(), weights.size()), bench::peak_f32(pool),
                          bench::peak_bf16(pool, isa), bench::peak_int8(pool, isa)};
    fmt::print("threads {} at {}: read {:.1f} GB/s, f32 {:.0f} GFLOP/s, bf16 {:.0f}, int8 {:.0f} GOP/s\n",
               pool.size(), to_string(isa), top.bandwidth * 1e-9, top.f32 * 1e-9, top.bf16 * 1e-9,
               top.int8 * 1e-9);
    for (const std::string& name : list(names)) {
      const codecs::Codec* codec = codecs::find_codec(name);
      if (!codec) {
        fmt::print(stderr, "matmul_bench: no codec {}\n", name);
        return 2;
      }
      for (const std::string& shape : list(shapes))
        measure(codec->id, isa, std::atoll(shape.c_str()), std::atoll(shape.c_str() + shape.find('x') + 1),
                rows, pool, top, weights);
    }
  }
}
