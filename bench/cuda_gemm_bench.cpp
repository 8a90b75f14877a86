// Times the products of rows of prompts on the GPU (backends/cuda/matmul_many.h) against cuBLASLt, in one
// run.
//   cuda_gemm_bench [--rows 512,2048,8192] [--shapes NxK,..] [--forms q4_k,q6_k] [--rounds 15] [--tiles]
//   [--json FILE]
// Columns, in TFLOP/s: cuBLASLt to bf16 and added to f32; ours to bf16, added to f32, gated (the same weight
// as two halves), from quantized forms with their unpacking before or on the way, and e4m3 with and without
// the rows' quantization. --tiles: every tile of ours to bf16. The kinds take turns, round by round, so that
// the clock's mood meets all of them alike; weights and rows rotate through more than L2 holds. Each number
// is the median of the rounds.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/cublas.h"
#include "backends/cuda/matmul_many.h"
#include "base/error.h"

namespace {

using namespace cairn;
using namespace cairn::cuda;

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

// Random numbers near normal(0, deviation) in bf16: zeros or repeated values would draw less power and look
// faster.
std::vector<uint16_t> random_bf16(size_t count, float deviation) {
  std::vector<uint16_t> values(count);
  std::mt19937 seed(42);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<uint16_t> some(1 << 20);
  for (auto& v : some) {
    const float x = normal(seed);
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    v = uint16_t((bits + 0x8000) >> 16);
  }
  uint64_t state = 88172645463325252u;
  for (auto& v : values) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    v = some[state >> 44];
  }
  return values;
}

struct Bench {
  Device device{0};
  KernelCache kernels{device};
  Stream stream{device};
  std::string no_cublas;
  std::unique_ptr<CublasLt> cublas = CublasLt::open(device, &no_cublas);
  int rounds = 15;

  Buffer filled(size_t bytes, float deviation) {
    Buffer b(device, bytes);
    const auto values = random_bf16(bytes / 2, deviation);
    stream.upload(b.address(), values.data(), bytes);
    stream.synchronize();
    return b;
  }

  // Random e4m3 below 2.
  Buffer filled_e4m3(size_t bytes) {
    Buffer b(device, bytes);
    std::vector<uint64_t> values(bytes / 8);
    std::mt19937_64 random(1);
    for (auto& v : values) v = random() & 0xbfbfbfbfbfbfbfbfu;
    stream.upload(b.address(), values.data(), bytes);
    stream.synchronize();
    return b;
  }

  using Run = std::function<void(int turn)>;
  // Milliseconds of each, by turns.
  std::map<std::string, double> race(const std::vector<std::pair<std::string, Run>>& runs) {
    std::map<std::string, std::vector<float>> times;
    for (const auto& [name, run] : runs) run(0), run(1);
    for (int round = 0; round < rounds; ++round) {
      std::vector<Event> events;
      for (const auto& [name, run] : runs) {
        events.emplace_back(device, true), events.emplace_back(device, true);
        events[events.size() - 2].record(stream);
        run(round);
        events.back().record(stream);
      }
      stream.synchronize();
      for (size_t i = 0; i < runs.size(); ++i)
        times[runs[i].first].push_back(events[2 * i + 1].since(events[2 * i]));
    }
    std::map<std::string, double> medians;
    for (auto& [name, t] : times) {
      std::sort(t.begin(), t.end());
      medians[name] = double(t[t.size() / 2]);
    }
    return medians;
  }
};

struct Shape {
  int64_t n, k;
};

int run(int argc, char** argv) {
  Bench bench;
  std::vector<int64_t> rows = {512, 2048, 8192};
  std::vector<Shape> shapes = {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};
  std::vector<std::string> forms = {"q4_k"};
  std::string json;
  bool every_tile = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--tiles") {
      every_tile = true;
      continue;
    }
    if (i + 1 == argc) fail(ErrorKind::invalid_argument, "{} needs a value", flag);
    const std::string value = argv[++i];
    if (flag == "--rows") {
      rows.clear();
      for (const auto& r : list(value)) rows.push_back(std::stoll(r));
    } else if (flag == "--shapes") {
      shapes.clear();
      for (const auto& s : list(value))
        shapes.push_back({std::stoll(s), std::stoll(s.substr(s.find('x') + 1))});
    } else if (flag == "--forms") {
      forms = list(value);
    } else if (flag == "--rounds") {
      bench.rounds = std::stoi(value);
    } else if (flag == "--json") {
      json = value;
    } else {
      fail(ErrorKind::invalid_argument, "unknown flag {}", flag);
    }
  }
  const auto& facts = bench.device.facts();
  fmt::print("{}, {}; cuBLASLt: {}\n", facts.name, facts.architecture(),
             bench.cublas ? bench.cublas->path() : bench.no_cublas);
  std::string lines;
  double ceiling = 0;
  if (bench.cublas) {
    const int64_t size = 8192;
    const auto x = bench.filled(size_t(size * size) * 2, 1), w = bench.filled(size_t(size * size) * 2, 0.02f);
    const Buffer y(bench.device, size_t(size * size) * 2);
    const auto t = bench.race({{"ceiling", [&](int) {
                                  bench.cublas->multiply(bench.stream, x.address(), w.address(), y.address(),
                                                         false, false, size, size, size);
                                }}});
    ceiling = 2 * double(size * size * size) / t.at("ceiling") / 1e9;
    fmt::print("ceiling: {:.0f} TFLOP/s (cuBLASLt, 8192 x 8192 x 8192)\n", ceiling);
  }

  for (const auto& shape : shapes) {
    const int64_t n = shape.n, k = shape.k;
    const int64_t most = *std::max_element(rows.begin(), rows.end());
    const int copies = int(std::clamp<int64_t>((int64_t{160} << 20) / (n * k * 2) + 1, 2, 6));
    const size_t w_bytes = size_t(n * k) * 2, x_bytes = size_t(most * k) * 2;
    const auto w = bench.filled(w_bytes * size_t(copies), 0.02f), x = bench.filled(x_bytes * 2, 1);
    const Buffer y(bench.device, size_t(most * n) * 2), sum = bench.filled(size_t(most * n) * 4, 0);
    const Buffer codes(bench.device, x_bytes / 2), x_scales(bench.device, size_t(most) * 4);
    const auto w_codes = bench.filled_e4m3(w_bytes / 2 * size_t(copies));
    const auto w_scales = bench.filled(size_t(n) * 4, 0);
    const auto weight = [&](int turn) { return w.address() + uint64_t(size_t(turn % copies) * w_bytes); };
    const auto input = [&](int turn) { return x.address() + uint64_t(size_t(turn % 2) * x_bytes); };
    std::vector<DeviceMatrix> packed;
    for (const auto& name : forms) {
      if (name.empty()) continue;
      DeviceMatrix q;
      q.form = &form(name), q.rows = n, q.cols = k, q.piece_bytes = packed_bytes(*q.form, n, k);
      // Any bytes do: bf16 near 0.02 has no byte that makes a scale infinite.
      q.own = bench.filled((q.piece_bytes + 1) / 2 * 2, 0.02f), q.data = q.own.address();
      packed.push_back(std::move(q));
    }
    ManyScratch scratch;
    for (const auto& q : packed)
      scratch.half_bytes = std::max(scratch.half_bytes, matmul_many_half(q, false));
    const Buffer scratch_room(bench.device, 2 * scratch.half_bytes + 256);
    scratch.data = scratch_room.address();

    for (const int64_t m : rows) {
      const double once = 2 * double(m) * double(n) * double(k);
      MatMulCall to_bf16;
      to_bf16.m = m, to_bf16.y = y.address();
      MatMulCall to_sum = to_bf16;
      to_sum.y = to_sum.add = sum.address(), to_sum.y_f32 = true;
      const auto rows_of = [&](int turn, int64_t first, int64_t count) {
        return DenseRows{.data = weight(turn) + uint64_t(first * k * 2), .n = count, .k = k};
      };
      std::vector<std::pair<std::string, Bench::Run>> runs;
      if (bench.cublas) {
        runs.emplace_back("cublas", [&](int t) {
          bench.cublas->multiply(bench.stream, input(t), weight(t), y.address(), false, false, m, n, k);
        });
        runs.emplace_back("cublas+f32", [&](int t) {
          bench.cublas->multiply(bench.stream, input(t), weight(t), sum.address(), true, true, m, n, k);
        });
      }
      const auto add = [&](std::string name, MatMulCall call, const ManyTile* tile) {
        runs.emplace_back(std::move(name), [&, call, tile](int t) {
          MatMulCall now = call;
          now.x = input(t);
          DenseOptions options;
          options.tile = tile;
          matmul_dense(bench.kernels, bench.stream, rows_of(t, 0, n), nullptr, now, options);
        });
      };
      add("ours", to_bf16, nullptr), add("+f32", to_sum, nullptr);
      const auto tiles = many_tiles(facts.capability);
      if (every_tile)
        for (const auto& tile : tiles) add(fmt::format("{}x{}", tile.rows, tile.columns), to_bf16, &tile);
      runs.emplace_back("gated", [&](int t) {
        MatMulCall call = to_bf16;
        call.x = input(t), call.activation = program::Activation::silu;
        const auto up = rows_of(t, n / 2, n / 2);
        matmul_dense(bench.kernels, bench.stream, rows_of(t, 0, n / 2), &up, call);
      });
      for (const auto& q : packed)
        runs.emplace_back(std::string(q.form->name), [&](int t) {
          MatMulCall call = to_bf16;
          call.w = &q, call.x = input(t), call.overlap_previous = true;
          matmul_many(bench.kernels, bench.stream, call, scratch);
        });
      for (const auto& q : packed)
        runs.emplace_back(fmt::format("{} on the way", q.form->name), [&](int t) {
          MatMulCall call = to_bf16;
          call.w = &q, call.x = input(t);
          if (can_multiply_packed(facts.capability, q)) matmul_packed(bench.kernels, bench.stream, call);
        });
      // Five in a row: all but the first unpack beside the product before them.
      for (const auto& q : packed)
        runs.emplace_back(fmt::format("{} x5", q.form->name), [&](int t) {
          MatMulCall call = to_bf16;
          call.w = &q, call.x = input(t), call.overlap_previous = true;
          for (int i = 0; i < 5; ++i) matmul_many(bench.kernels, bench.stream, call, scratch);
        });
      for (const auto& q : packed)
        runs.emplace_back(fmt::format("{} unpacked", q.form->name), [&](int) {
          for (int64_t row = 0; row < n; row += 2048)
            unpack_rows(bench.kernels, bench.stream, q, 0, row, std::min<int64_t>(2048, n - row),
                        scratch.data, row > 0);
        });
      const auto e4m3_tiles = many_tiles(facts.capability, DenseRows::Element::e4m3);
      if (!e4m3_tiles.empty()) {
        const auto e4m3 = [&](int t, bool quantize, bool blocks, const ManyTile* tile = nullptr) {
          DenseRows codes_of_w{.data = w_codes.address() + uint64_t(size_t(t % copies) * w_bytes / 2),
                               .n = n,
                               .k = k,
                               .element = DenseRows::Element::e4m3,
                               .scales = w_scales.address(),
                               .block_scales = blocks};
          DenseOptions options;
          options.x_scales = x_scales.address(), options.tile = tile;
          MatMulCall call = to_bf16;
          call.x = codes.address();
          if (quantize)
            quantize_rows(bench.kernels, bench.stream, input(t), m, k, codes.address(), x_scales.address());
          matmul_dense(bench.kernels, bench.stream, codes_of_w, nullptr, call, options);
        };
        runs.emplace_back("e4m3+q", [=](int t) { e4m3(t, true, false); });
        runs.emplace_back("e4m3", [=](int t) { e4m3(t, false, false); });
        runs.emplace_back("e4m3 blocks", [=](int t) { e4m3(t, false, true); });
        if (every_tile)
          for (const auto& tile : e4m3_tiles)
            runs.emplace_back(fmt::format("e4m3 {}x{}", tile.rows, tile.columns),
                              [=, &tile](int t) { e4m3(t, false, false, &tile); });
      }
      const auto times = bench.race(runs);
      const auto tile = choose_many_tile(facts, m, {.n = n, .k = k}, false);
      std::string line = fmt::format("{:5} x {:6} x {:5} ({}x{}):", m, n, k, tile.rows, tile.columns);
      for (const auto& [name, unused] : runs) {
        const double flops = once * (name.ends_with(" x5") ? 5 : 1);
        if (name.ends_with("unpacked"))
          line += fmt::format("  {} in {:.1f} us", name, times.at(name) * 1e3);
        else
          line += fmt::format("  {} {:.0f}", name, flops / times.at(name) / 1e9);
        lines += fmt::format(
            "{}{{\"m\": {}, \"n\": {}, \"k\": {}, \"kind\": \"{}\", \"tflops\": {:.1f}, \"us\": {:.2f}}}",
            lines.empty() ? "" : ",\n    ", m, n, k, name, flops / times.at(name) / 1e9,
            times.at(name) * 1e3);
      }
      fmt::print("{}\n", line);
      std::fflush(stdout);
    }
  }
  if (!json.empty())
    std::ofstream(json) << fmt::format(
        "{{\n  \"device\": \"{}\",\n  \"ceiling_tflops\": {:.1f},\n  \"products\": [\n    {}\n  ]\n}}\n",
        facts.name, ceiling, lines);
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
