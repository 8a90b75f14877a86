// Times the products of a step of many answers on the GPU: weights of the shape of Llama 3.1 8B in bf16, each
// launch with weights of its own, recorded as a graph whose kernels start while the one ahead ends, as in the
// executor.
//   cuda_step_bench [--rows 48,64,128,256] [--rounds 5] [--tiles 0|1]
// First microseconds per product for every tile, by turns (*: the one that is chosen); then per layer (q, k
// and v together, o, gate and up gated, down) with what is chosen. Roofline: the larger of the weights' bytes
// over 4.34 TB/s and the operations over 780 TFLOP/s. Links: cairn_backends_cuda
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/matmul_many.h"
#include "base/error.h"

namespace {

using namespace cairn;
using namespace cairn::cuda;

constexpr int64_t kHidden = 4096, kInner = 14336, kVocabulary = 128256;
constexpr size_t kArena = size_t{3} << 30;

std::vector<int64_t> numbers(const std::string& text) {
  std::vector<int64_t> items;
  for (size_t at = 0; at < text.size(); at = std::min(text.find(',', at), text.size() - 1) + 1)
    items.push_back(std::stoll(text.substr(at)));
  return items;
}

struct Bench {
  Device device{0};
  KernelCache kernels{device};
  Stream stream{device};
  int rounds = 5;
  Buffer weights{device, kArena}, x{device, size_t(512 * kInner * 2)},
      y{device, size_t(512 * kVocabulary * 4)};
  size_t used = 0;

  // Normal numbers, a part of the arena that is copied to the others.
  void fill() {
    std::vector<uint16_t> some(size_t{16} << 20);
    std::mt19937 random(1);
    std::vector<uint16_t> normals(1 << 16);
    std::normal_distribution<float> normal(0, 0.02f);
    for (auto& v : normals) {
      const float value = normal(random);
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      v = uint16_t(bits >> 16);
    }
    uint64_t state = 88172645463325252u;
    for (auto& v : some) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      v = normals[state >> 48];
    }
    const size_t bytes = some.size() * 2;
    stream.upload(weights.address(), some.data(), bytes);
    for (size_t done = bytes; done < weights.size(); done += std::min(done, weights.size() - done))
      stream.copy(weights.address() + done, weights.address(), std::min(done, weights.size() - done));
    for (size_t done = 0; done < x.size(); done += bytes)
      stream.copy(x.address() + done, weights.address() + 4096, std::min(bytes, x.size() - done));
    stream.synchronize();
  }

  // Another part of the arena, so that nothing is read from L2.
  Address take(int64_t n, int64_t k) {
    const size_t bytes = size_t(n * k) * 2;
    if (used + bytes > weights.size()) used = 0;
    const Address at = weights.address() + used;
    used += bytes;
    return at;
  }

  // Microseconds of what f launches, in a graph: medians, kinds by turns.
  std::vector<double> race(const std::vector<std::function<void()>>& kinds) {
    std::vector<Graph> graphs;
    for (const auto& f : kinds) {
      f();  // compiles
      graphs.push_back(Graph::capture(stream, f));
    }
    std::vector<std::vector<double>> times(kinds.size());
    for (int round = -1; round < rounds; ++round)
      for (size_t i = 0; i < kinds.size(); ++i) {
        Event begin(device, true), end(device, true);
        begin.record(stream);
        graphs[i].launch(stream);
        end.record(stream);
        stream.synchronize();
        if (round >= 0) times[i].push_back(double(end.since(begin)) * 1e3);
      }
    std::vector<double> medians;
    for (auto& t : times) {
      std::sort(t.begin(), t.end());
      medians.push_back(t[t.size() / 2]);
    }
    return medians;
  }
};

struct Product {
  const char* name;
  std::vector<int64_t> ns;
  int64_t k;
  bool gated, f32;
};
const Product kProducts[] = {{"qkv", {4096, 1024, 1024}, kHidden, false, false},
                             {"o", {kHidden}, kHidden, false, false},
                             {"gate_up", {kInner}, kHidden, true, false},
                             {"down", {kHidden}, kInner, false, false},
                             {"vocabulary", {kVocabulary}, kHidden, false, true}};

std::string name(const ManyTile& t) { return fmt::format("{}x{}", t.rows, t.columns); }

bool fits(const ManyTile& t, const Product& p) {
  return many_tile_fits(t, p.gated) && (p.ns.size() == 1 || t.columns >= 64);
}

double roofline(const Product& p, int64_t m) {
  int64_t n = 0;
  for (const int64_t one : p.ns) n += one * (p.gated ? 2 : 1);
  return std::max(double(n * p.k) * 2 / 4.34e6, 2 * double(m) * double(n) * double(p.k) / 780e6);
}

void launch(Bench& b, const Product& p, int64_t m, const ManyTile* tile) {
  std::vector<DeviceMatrix> w(p.ns.size() + 1);
  std::vector<MatMulCall> calls;
  const auto matrix = [&](DeviceMatrix& into, int64_t n) {
    into.form = &form("bf16"), into.rows = n, into.cols = p.k, into.piece_bytes = size_t(n * p.k) * 2;
    into.data = b.take(n, p.k);
  };
  Address y = b.y.address();
  for (size_t i = 0; i < p.ns.size(); ++i) {
    matrix(w[i], p.ns[i]);
    MatMulCall c;
    c.w = &w[i], c.x = b.x.address(), c.m = m, c.y = y, c.y_f32 = p.f32, c.overlap_previous = true;
    y += Address(m * p.ns[i] * 4);
    if (p.gated) {
      matrix(w[i + 1], p.ns[i]);
      c.up = &w[i + 1], c.activation = program::Activation::silu;
    }
    calls.push_back(c);
  }
  ManyScratch none;
  if (!tile) return matmul_many(b.kernels, b.stream, calls, none);
  std::vector<DenseRows> rows;
  for (const auto& one : w) rows.push_back({.data = one.data, .n = one.rows, .k = one.cols});
  if (calls.size() > 1) {
    rows.resize(calls.size());
    return matmul_dense_joined(b.kernels, b.stream, rows, calls, *tile);
  }
  DenseOptions options;
  options.tile = tile, options.early = true;
  matmul_dense(b.kernels, b.stream, rows[0], p.gated ? &rows[1] : nullptr, calls[0], options);
}

int run(int argc, char** argv) {
  std::vector<int64_t> rows = {48, 64, 128, 256};
  Bench bench;
  bool every_tile = true;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--rows")
      rows = numbers(value);
    else if (flag == "--rounds")
      bench.rounds = std::stoi(value);
    else if (flag == "--tiles")
      every_tile = value != "0";
    else
      fail(ErrorKind::invalid_argument, "unknown flag {}", flag);
  }
  bench.fill();
  const int capability = bench.device.facts().capability;
  fmt::print("{}, {} multiprocessors\n", bench.device.facts().name, bench.device.facts().multiprocessors);
  const auto tiles = many_tiles(capability);
  {
    std::vector<Variant> all;
    for (const auto& p : kProducts) {
      std::vector<DeviceMatrix> w(p.ns.size());
      std::vector<MatMulCall> calls(p.ns.size());
      for (size_t i = 0; i < w.size(); ++i) {
        w[i].form = &form("bf16"), w[i].rows = p.ns[i], w[i].cols = p.k;
        calls[i].w = &w[i], calls[i].y_f32 = p.f32;
        if (p.gated) calls[i].up = &w[i], calls[i].activation = program::Activation::silu;
      }
      for (auto& v : matmul_many_variants(capability, calls)) all.push_back(std::move(v));
    }
    bench.kernels.prepare(all);
    fmt::print("{} kernels compiled in {:.1f} s\n", all.size(), bench.kernels.prepare_seconds());
  }
  if (every_tile) {
    constexpr int kTimes = 6;
    fmt::print(
        "microseconds per product\n{:>10} "
        "{:>4} {:>7}",
        "", "m", "roofline");
    for (const auto& t : tiles) fmt::print(" {:>8}", name(t));
    fmt::print("\n");
    for (const auto& p : kProducts)
      for (const int64_t m : rows) {
        DenseRows w{.n = 0, .k = p.k};
        for (const int64_t n : p.ns) w.n += n;
        std::vector<std::function<void()>> kinds;
        for (const auto& t : tiles)
          if (fits(t, p))
            kinds.push_back([&, t] {
              for (int i = 0; i < kTimes; ++i) launch(bench, p, m, &t);
            });
        const auto times = bench.race(kinds);
        const auto chosen = choose_many_tile(bench.device.facts(), m, w, p.gated);
        fmt::print("{:>10} {:4} {:7.1f} ", p.name, m, roofline(p, m));
        size_t i = 0;
        for (const auto& t : tiles)
          fmt::print(" {:>8}",
                     fits(t, p) ? fmt::format("{:.1f}{}", times[i++] / kTimes, t == chosen ? "*" : "") : "-");
        fmt::print("\n");
        std::fflush(stdout);
      }
  }
  fmt::print("microseconds per layer of a chain of 6\n{:>4} {:>8} {:>8}\n", "m", "roofline", "chosen");
  for (const bool vocabulary : {false, true})
    for (const int64_t m : rows) {
      constexpr int kLayers = 6;
      const auto times = bench.race({[&] {
        for (int layer = 0; layer < kLayers; ++layer)
          for (int i = 0; i < 4; ++i) launch(bench, kProducts[i], m, nullptr);
        if (vocabulary) launch(bench, kProducts[4], m, nullptr);
      }});
      double best = vocabulary ? roofline(kProducts[4], m) / kLayers : 0;
      for (int i = 0; i < 4; ++i) best += roofline(kProducts[i], m);
      fmt::print("{:4} {:8.1f} {:8.1f}{}\n", m, best, times[0] / kLayers,
                 vocabulary ? " (6 layers and the vocabulary, by 6)" : "");
      std::fflush(stdout);
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
