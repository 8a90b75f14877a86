// Times the GPU's products of few rows against the read bandwidth measured in the same run.
//   cuda_matmul_bench [--forms bf16,q4_k] [--rows 1,8,16,64] [--sweep] [--chain] [--json FILE]
// Shapes are those of Llama-3.1-8B. Every launch reads another copy of the weights (a gigabyte and more in
// turn); launches are replayed as a graph with programmatic dependent launch, as decoding does it.
// --warpgroups: tilings of matmul_few_sm90 beside what is chosen of mma.sync, a line per product.
// --sweep: many tilings per product; --chain: four products of a layer after each other, over 16 layers.
// Links: cairn_backends_cuda
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/ceilings.h"
#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_few_sm90.h"
#include "backends/cuda/matmul_row.h"
#include "base/checked.h"
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

struct Bench {
  Device device{0};
  KernelCache kernels{device};
  Stream stream{device};
  Buffer pool, x, y;
  double ceiling = 0;
  std::string json = "[";

  static constexpr size_t kPool = size_t{12} << 30;

  Bench() : pool(device, kPool), x(device, size_t{64} * 14336 * 2), y(device, size_t{64} * 131072 * 4) {
    // Bytes below 0x40: finite in every field of every form.
    constexpr size_t kSeed = 48 << 20;
    std::vector<uint32_t> seed(kSeed / 4);
    std::mt19937 random(1);
    for (auto& v : seed) v = uint32_t(random()) & 0x3f3f3f3fu;
    stream.upload(pool.address(), seed.data(), kSeed);
    stream.upload(x.address(), seed.data(), x.size());
    for (size_t at = kSeed; at < kPool; at += kSeed)
      stream.copy(pool.address() + at, pool.address(), std::min(kSeed, kPool - at));
    stream.synchronize();
    ceiling = measure_read_bandwidth(device).median_gb_per_s * 1e9;
    fmt::print("{}: reads {:.2f} TB/s\n", device.facts().name, ceiling / 1e12);
  }

  // Seconds per call of f, `count` calls to a graph; the median of five replays.
  template <typename F>
  double seconds(F&& f, int count) {
    auto graph = Graph::capture(stream, [&] {
      for (int i = 0; i < count; ++i) f(i);
    });
    graph.launch(stream);
    std::vector<double> times;
    Event start(device, true), end(device, true);
    for (int i = 0; i < 5; ++i) {
      start.record(stream);
      graph.launch(stream);
      end.record(stream);
      end.synchronize();
      times.push_back(double(end.since(start)) * 1e-3 / count);
    }
    std::sort(times.begin(), times.end());
    return times[2];
  }

  DeviceMatrix matrix(const Form& f, int64_t rows, int64_t cols, size_t& at) {
    DeviceMatrix w;
    w.form = &f;
    w.rows = rows, w.cols = cols;
    w.piece_bytes = packed_bytes(f, rows, cols);
    if (at + w.piece_bytes > kPool) at = 0;
    w.data = pool.address() + at;
    at += w.piece_bytes;
    return w;
  }

  void report(const std::string& what, const Form& f, int64_t m, double bytes, double time,
              const std::string& how) {
    fmt::print("{:10} {:16} m {:3} {:8.2f} us {:6.0f} GB/s {:5.1f} % {}\n", f.name, what, m, time * 1e6,
               bytes / time / 1e9, 100 * bytes / time / ceiling, how);
    std::fflush(stdout);
    json += fmt::format(
        "{}\n{{\"form\": \"{}\", \"shape\": \"{}\", \"m\": {}, \"us\": {:.3f}, \"gb_per_s\": {:.1f}, "
        "\"of_read_ceiling\": {:.4f}, \"how\": \"{}\"}}",
        json.size() > 1 ? "," : "", f.name, what, m, time * 1e6, bytes / time / 1e9, bytes / time / ceiling,
        how);
  }

  struct Shape {
    const char* name;
    std::vector<int64_t> rows;
    int64_t cols;
    bool gated;
  };
  static std::vector<Shape> shapes() {
    return {{"qkv", {4096, 1024, 1024}, 4096, false},
            {"attn_out", {4096}, 4096, false},
            {"gate_up", {14336}, 4096, true},
            {"down", {4096}, 14336, false},
            {"head", {128256}, 4096, false}};
  }

  struct Product {
    std::vector<DeviceMatrix> weights;  // gated: gate and up
    std::vector<MatMulCall> calls;
    double bytes = 0;
  };
  void fill(Product& p, const Form& f, const Shape& s, int64_t m, size_t& at) {
    p.weights.reserve(8);
    for (const int64_t rows : s.rows) {
      MatMulCall call;
      call.m = m, call.x = x.address(), call.y = y.address(), call.overlap_previous = true;
      p.weights.push_back(matrix(f, rows, s.cols, at));
      call.w = &p.weights.back();
      p.bytes += double(p.weights.back().piece_bytes);
      if (s.gated) {
        p.weights.push_back(matrix(f, rows, s.cols, at));
        call.up = &p.weights.back();
        call.activation = program::Activation::silu;
        p.bytes += double(p.weights.back().piece_bytes);
      }
      p.calls.push_back(call);
    }
  }

  void one(const Form& f, const Shape& s, int64_t m, const FewTiling& tiling) {
    if (few_shared_bytes(f, tiling) > device.facts().shared_per_block) return;
    size_t at = 0;
    std::vector<Product> products(
        size_t(std::clamp<int64_t>(int64_t(1.5e9 / (double(s.rows[0]) * double(s.cols) * f.block_bytes() / 8 /
                                                    f.chunk * (s.gated ? 2 : 1))),
                                   3, 24)));
    for (auto& p : products) fill(p, f, s, m, at);
    const double time = seconds(
        [&](int i) { matmul_few(kernels, stream, products[size_t(i)].calls, tiling); }, int(products.size()));
    report(s.name, f, m, products[0].bytes, time,
           fmt::format("p {} rt {} kw {} rw {} cl {} st {} mb {} bpm {}", tiling.parts, tiling.row_tiles,
                       tiling.k_warps, tiling.row_warps, tiling.cluster, tiling.stages, tiling.min_blocks,
                       tiling.blocks_per_multiprocessor));
  }

  static std::vector<WarpgroupTiling> warpgroup_candidates(const Form& f, int64_t m, size_t room) {
    std::vector<WarpgroupTiling> all;
    for (const int warpgroups : {4, 3, 2})
      for (const int cluster : {1, 2, 4, 8})
        all.push_back(with_stages(f,
                                  {.token_tiles = m <= 8    ? 1
                                                  : m <= 16 ? 2
                                                  : m <= 32 ? 4
                                                            : 8,
                                   .warpgroups = warpgroups,
                                   .cluster = cluster},
                                  room));
    return all;
  }
  // Microseconds of mma.sync as chosen and of tilings of warpgroups, a line per shape.
  void warpgroups(const Form& f, const std::vector<std::string>& rows) {
    const size_t room = device.facts().shared_per_block;
    std::vector<Variant> needed;
    for (const auto& r : rows)
      for (const auto& s : shapes()) {
        const int64_t m = std::stoll(r);
        for (const auto& t : warpgroup_candidates(f, m, room))
          needed.push_back(warpgroup_variant(f, t, s.gated));
        int64_t total = 0;
        for (const int64_t n : s.rows) total += n;
        needed.push_back(few_variant(f, few_tiling(f, total, s.cols, m, s.gated, device.facts()), s.gated));
      }
    std::sort(needed.begin(), needed.end(), [](const auto& a, const auto& b) { return a.id() < b.id(); });
    needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
    kernels.prepare(needed);
    fmt::print("{:>10} {:>10} {:>4} {:>7} {:>8}", f.name, "us", "m", "bytes", "mma.sync");
    for (const auto& t : warpgroup_candidates(f, 8, room))
      fmt::print(" {:>6}", fmt::format("w{}c{}", t.warpgroups, t.cluster));
    fmt::print("\n");
    for (const auto& s : shapes())
      for (const auto& r : rows) {
        const int64_t m = std::stoll(r);
        size_t at = 0;
        std::vector<Product> products(size_t(std::clamp<int64_t>(
            int64_t(1e9 / (double(s.rows[0]) * double(s.cols) * f.block_bytes() / 8 / f.chunk)), 4, 24)));
        for (auto& p : products) fill(p, f, s, m, at);
        const int count = int(products.size());
        int64_t total = 0;
        for (const int64_t n : s.rows) total += n;
        const auto mma = few_tiling(f, total, s.cols, m, s.gated, device.facts());
        fmt::print("{:>10} {:>10} {:4} {:7.1f}", f.name, s.name, m, products[0].bytes / ceiling * 1e6);
        fmt::print(" {:8.1f}",
                   1e6 * seconds([&](int i) { matmul_few(kernels, stream, products[size_t(i)].calls, mma); },
                                 count));
        for (const auto& t : warpgroup_candidates(f, m, room)) {
          fmt::print(
              " {:6.1f}",
              1e6 * seconds([&](int i) { matmul_few_sm90(kernels, stream, products[size_t(i)].calls, t); },
                            count));
          std::fflush(stdout);
        }
        fmt::print("\n");
      }
  }

  static std::string describe(const RowTiling& t) {
    return fmt::format("alone: rw {} st {} bpm {}", t.row_warps, t.stages, t.blocks_per_multiprocessor);
  }
  void alone(const Form& f, const Shape& s, const RowTiling& tiling) {
    size_t at = 0;
    std::vector<Product> products(
        size_t(std::clamp<int64_t>(int64_t(1.5e9 / (double(s.rows[0]) * double(s.cols) * f.block_bytes() / 8 /
                                                    f.chunk * (s.gated ? 2 : 1))),
                                   3, 24)));
    for (auto& p : products) fill(p, f, s, 1, at);
    const double time = seconds(
        [&](int i) { matmul_row(kernels, stream, products[size_t(i)].calls, tiling); }, int(products.size()));
    report(s.name, f, 1, products[0].bytes, time, describe(tiling));
  }
  // tilings: of the four products, null as chosen
  void chain_alone(const Form& f, const RowTiling* tiling) {
    const auto all = shapes();
    size_t at = 0;
    std::vector<Product> products(64);
    double bytes = 0;
    for (size_t i = 0; i < products.size(); ++i)
      fill(products[i], f, all[i % 4], 1, at), bytes += products[i].bytes;
    const double time = seconds(
        [&](int) {
          for (auto& p : products) {
            if (tiling && row_shared_bytes(f, *tiling, p.weights[0].cols) <= device.facts().shared_per_block)
              matmul_row(kernels, stream, p.calls, *tiling);
            else
              matmul_row(kernels, stream, p.calls);
          }
        },
        1);
    report("16 layers", f, 1, bytes, time, tiling ? describe(*tiling) : "alone: as chosen");
  }

  // blocks: of a multiprocessor, 0 as chosen
  void chain(const Form& f, int64_t m, int blocks) {
    const auto all = shapes();
    size_t at = 0;
    std::vector<Product> products(64);
    double bytes = 0;
    for (size_t i = 0; i < products.size(); ++i)
      fill(products[i], f, all[i % 4], m, at), bytes += products[i].bytes;
    const double time = seconds(
        [&](int) {
          for (auto& p : products) {
            int64_t rows = 0;
            for (const auto& call : p.calls) rows += call.w->rows;
            auto t = few_tiling(f, rows, p.weights[0].cols, m, p.calls[0].up != nullptr, device.facts());
            if (blocks) t.blocks_per_multiprocessor = blocks;
            matmul_few(kernels, stream, p.calls, t);
          }
        },
        1);
    report("16 layers", f, m, bytes, time, fmt::format("chain, {} blocks", blocks));
  }
};

std::vector<RowTiling> row_candidates(const Form& f, int64_t cols) {
  std::vector<RowTiling> all;
  for (const auto& [rw, blocks, fill] :
       {std::array{1, 2, 2}, {1, 1, 2}, {1, 1, 1}, {2, 1, 2}, {2, 1, 1}, {1, 3, 3}}) {
    RowTiling t{rw, 8, blocks};
    while (t.stages > 2 && row_shared_bytes(f, t, cols) > (227u / unsigned(fill) - (fill > 1)) * 1024)
      --t.stages;
    if (row_shared_bytes(f, t, cols) > (227u / unsigned(fill) - (fill > 1)) * 1024) continue;
    if (std::find(all.begin(), all.end(), t) == all.end()) all.push_back(t);
  }
  return all;
}

std::vector<FewTiling> candidates(const Form& f, int64_t m) {
  const bool blocks = f.layout == Layout::blocks;
  const int tt = m <= 8 ? 1 : m <= 16 ? 2 : m <= 32 ? 4 : 8;
  std::vector<FewTiling> c;
  // fill: how much of a multiprocessor's shared memory a block may take, in blocks
  const auto add = [&](int rt, int parts, int kw, int rw, int cl, int fill, int mb, int bpm) {
    FewTiling t{rt, tt, parts, kw, rw, cl, 8, mb, bpm, m == 1};
    while (t.stages > 2 && few_shared_bytes(f, t) > (227u / unsigned(fill) - (fill > 1)) * 1024) --t.stages;
    if (few_shared_bytes(f, t) > 227u * 1024) return;
    if (std::find(c.begin(), c.end(), t) == c.end()) c.push_back(t);
  };
  for (const int p : {few_parts(f)}) {
    const int few = 8 / p;  // row warps that make 8 warps
    if (m <= 8) {
      for (const int rt : {1, 2}) {
        add(rt, p, p, few, 1, 2, 2, 1), add(rt, p, p, few, 1, 2, 2, 2), add(rt, p, p, few, 1, 1, 1, 1);
        add(rt, p, p, 2 * few, 1, 1, 1, 1), add(rt, p, p, 2 * few, 1, 2, 2, 1);
        if (blocks) add(rt, p, p, 2 * few, 1, 2, 2, 2), add(rt, p, p, few, 1, 3, 2, 3);
      }
    } else if (m <= 16) {
      for (const int rt : {1, 2}) {
        add(rt, p, p, few, 1, 2, 2, 1), add(rt, p, p, few, 1, 1, 1, 1), add(rt, p, p, 2 * few, 1, 1, 1, 1);
        add(rt, p, p, 2 * few, 1, 2, 2, 1), add(rt, p, p / 2, 4, 2, 1, 1, 1);
      }
    }
    if (m > 8) {
      add(1, p, 1, 8, 1, 2, 2, 1), add(1, p, 1, 16, 1, 1, 1, 1), add(1, p, 1, 8, p, 2, 2, 1);
      add(1, p, 1, 16, p, 1, 1, 1), add(2, p, 1, 8, p, 1, 1, 1), add(2, p, 1, 8, 1, 1, 1, 1);
      add(1, p, p / 2, 4, 2, 1, 1, 1), add(1, p, 2, 4, p / 2, 2, 2, 1), add(1, p, 2, 8, p / 2, 1, 1, 1);
      add(2, p, 1, 8, p, 2, 2, 1), add(2, p, 1, 4, p, 2, 2, 1), add(2, p, 1, 8, 1, 2, 2, 1);
      add(2, p, p / 2, 4, 2, 1, 1, 1), add(2, p, p / 2, 2, 2, 2, 2, 1), add(2, p, 2, 4, p / 2, 2, 2, 1);
      add(2, p, p, 2, 1, 1, 1, 1), add(2, p, 2, 4, p / 2, 1, 1, 1);
      if (p == 4) add(1, p, 4, 4, 1, 1, 1, 1);
    }
  }
  return c;
}

int run(int argc, char** argv) {
  std::vector<std::string> names = {"bf16"}, rows = {"1"}, only;
  bool sweep = false, chain = false, warpgroups = false;
  std::string json;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--sweep")
      sweep = true;
    else if (a == "--chain")
      chain = true;
    else if (a == "--warpgroups")
      warpgroups = true;
    else if (a == "--forms" && i + 1 < argc)
      names = list(argv[++i]);
    else if (a == "--rows" && i + 1 < argc)
      rows = list(argv[++i]);
    else if (a == "--shapes" && i + 1 < argc)
      only = list(argv[++i]);
    else if (a == "--json" && i + 1 < argc)
      json = argv[++i];
    else {
      fmt::print(stderr, "unknown option {}\n", a);
      return 2;
    }
  }
  Bench bench;
  if (warpgroups) {
    for (const auto& name : names) bench.warpgroups(form(name), rows);
    return 0;
  }
  std::vector<Variant> needed;
  for (const auto& name : names)
    for (const auto& r : rows)
      for (const bool gated : {false, true})
        for (auto t : candidates(form(name), std::stoll(r))) {
          if (sweep) needed.push_back(few_variant(form(name), t, gated));
        }
  for (const auto& name : names)
    for (const bool gated : {false, true})
      for (const int64_t cols : {4096, 14336})
        if (has_matmul_row(form(name), cols, bench.device.facts()))
          for (const auto& t : row_candidates(form(name), cols))
            needed.push_back(row_variant(form(name), t, gated));
  std::sort(needed.begin(), needed.end(), [](const auto& a, const auto& b) { return a.id() < b.id(); });
  needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
  if (!needed.empty()) bench.kernels.prepare(needed);
  for (const auto& name : names)
    for (const auto& r : rows) {
      const Form& f = form(name);
      const int64_t m = std::stoll(r);
      const bool alone = m == 1 && has_matmul_row(f, 14336, bench.device.facts());
      if (chain) {
        bench.chain(f, m, 0);
        if (alone) bench.chain_alone(f, nullptr);
        if (alone && sweep)
          for (const auto& t : row_candidates(f, 4096)) bench.chain_alone(f, &t);
      }
      for (const auto& s : Bench::shapes()) {
        if (!only.empty() && std::find(only.begin(), only.end(), s.name) == only.end()) continue;
        int64_t total = 0;
        for (const int64_t n : s.rows) total += n;
        if (alone)
          for (const auto& t : row_candidates(f, s.cols)) bench.alone(f, s, t);
        if (sweep)
          for (const auto& t : candidates(f, m)) bench.one(f, s, m, t);
        else
          bench.one(f, s, m, few_tiling(f, total, s.cols, m, s.gated, bench.device.facts()));
      }
    }
  if (!json.empty()) std::ofstream(json) << bench.json << "\n]\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const cairn::Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
