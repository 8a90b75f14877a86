// Times products with planes of signs on a GPU: looked up, unpacked for the kernels of prompts, and beside
// them the dequantising kernel at equal bits and cuBLASLt in bf16, for 1 to 64 rows; where one overtakes
// another.
//   cuda_lookup_bench [--planes 3] [--rows 1,2,4,8,16,32,64] [--sweep]
// Every launch reads another copy of the weights (1.5 GB and more in turn); launches are replayed as a graph.
// Links: cairn_backends_cuda
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/ceilings.h"
#include "backends/cuda/cublas.h"
#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_lookup.h"
#include "backends/cuda/matmul_many.h"
#include "base/checked.h"
#include "base/error.h"

namespace {

using namespace cairn;
using namespace cairn::cuda;

struct Bench {
  static constexpr size_t kPool = size_t{8} << 30;
  Device device{0};
  KernelCache kernels{device};
  Stream stream{device};
  Buffer pool{device, kPool}, x{device, size_t{64} * 49152 * 2}, y{device, size_t{64} * 65536 * 4};
  Buffer scratch{device, size_t{3} << 30};
  std::unique_ptr<CublasLt> cublas;

  Bench() {
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
    std::string why;
    cublas = CublasLt::open(device, &why);
    fmt::print("{}: reads {:.2f} TB/s; cuBLASLt: {}\n", device.facts().name,
               measure_read_bandwidth(device).median_gb_per_s / 1e3, cublas ? cublas->path() : why);
  }

  template <typename F>
  double seconds(F&& f, int count) {
    auto graph = Graph::capture(stream, [&] {
      for (int i = 0; i < count; ++i) f(i);
    });
    graph.launch(stream);
    std::vector<double> times;
    Event start(device, true), end(device, true);
    for (int i = 0; i < 7; ++i) {
      start.record(stream);
      graph.launch(stream);
      end.record(stream);
      end.synchronize();
      times.push_back(double(end.since(start)) * 1e-3 / count);
    }
    std::sort(times.begin(), times.end());
    return times[3];
  }

  // Seconds of a product with every copy of a matrix in turn.
  template <typename F>
  double rotate(const Form& f, int64_t rows, int64_t cols, int64_t m, F&& multiply) {
    const size_t bytes = packed_bytes(f, rows, cols),
                 copies = std::clamp<size_t>((size_t{3} << 29) / bytes, 3, 40);
    std::vector<DeviceMatrix> w(copies);
    for (size_t i = 0; i < copies; ++i) {
      w[i].form = &f, w[i].rows = rows, w[i].cols = cols;
      w[i].piece_bytes = bytes, w[i].data = pool.address() + i * bytes % (kPool - bytes) / 256 * 256;
    }
    return seconds(
        [&](int i) {
          MatMulCall call;
          call.w = &w[size_t(i)], call.m = m, call.x = x.address(), call.y = y.address(), call.y_f32 = true;
          call.overlap_previous = true;
          multiply(call);
        },
        int(copies));
  }

  void shape(int planes, int64_t rows, int64_t cols, const std::vector<int64_t>& counts, bool sweep) {
    const Form &signs = form(fmt::format("bcq{}_g128", planes)), &bf16 = form("bf16");
    const Form& ints = form(fmt::format("int{}_g128", planes == 1 ? 2 : planes));
    const double bytes = double(packed_bytes(signs, rows, cols));
    if (sweep)
      for (const LookupTiling t : {LookupTiling{1, 16, 2},
                                   {1, 16, 1},
                                   {2, 16, 1},
                                   {1, 8, 4},
                                   {1, 8, 3},
                                   {2, 8, 2},
                                   {2, 8, 3},
                                   {1, 4, 8}}) {
        const double s = rotate(signs, rows, cols, 1, [&](const MatMulCall& call) {
          matmul_lookup(kernels, stream, std::span(&call, 1), t);
        });
        fmt::print("  q {} {} x {}, sets {} parts {:2} min blocks {}: {:8.2f} us {:5.0f} GB/s\n", planes,
                   rows, cols, t.sets, t.parts, t.min_blocks, s * 1e6, bytes / s / 1e9);
      }
    if (sweep)
      for (const int64_t m : {1, 8, 16, 32})
        for (const SignsTiling t : {SignsTiling{8, 1, 8, 2},
                                    {8, 1, 16, 1},
                                    {8, 2, 8, 2},
                                    {8, 2, 8, 1},
                                    {8, 1, 4, 4},
                                    {16, 1, 8, 2},
                                    {16, 2, 8, 1},
                                    {16, 1, 16, 1},
                                    {32, 1, 8, 1},
                                    {32, 1, 4, 2}}) {
          if (m <= 8 ? t.tokens != 8 : t.tokens < 16) continue;
          const double s = rotate(signs, rows, cols, m, [&](const MatMulCall& call) {
            matmul_signs(kernels, stream, std::span(&call, 1), t);
          });
          fmt::print(
              "  q {} {} x {} m {:2}, signs: tokens {:2} sets {} parts {:2} min blocks {}: {:8.2f} us\n",
              planes, rows, cols, m, t.tokens, t.sets, t.parts, t.min_blocks, s * 1e6);
        }
    for (const int64_t m : counts) {
      const auto planes_of = [&](bool alone) {
        return rotate(signs, rows, cols, m, [&](MatMulCall call) {
          call.alone = alone;
          matmul_planes(kernels, stream, std::span(&call, 1));
        });
      };
      const double looked_up = planes_of(true), multiplied = planes_of(false);
      ManyScratch halves{scratch.address(), scratch.size() / 2};
      const double unpacked = rotate(
          signs, rows, cols, m, [&](const MatMulCall& call) { matmul_many(kernels, stream, call, halves); });
      const double dequantised =
          rotate(ints, rows, cols, m, [&](const MatMulCall& call) { matmul_few(kernels, stream, call); });
      const double few =
          rotate(bf16, rows, cols, m, [&](const MatMulCall& call) { matmul_few(kernels, stream, call); });
      const double blas = !cublas ? 0 : rotate(bf16, rows, cols, m, [&](const MatMulCall& call) {
        cublas->multiply(stream, call.x, call.w->data, call.y, true, false, m, rows, cols);
      });
      fmt::print(
          "q {} {} x {} m {:2}: looked up {:8.2f} us ({:4.0f} GB/s), tensor cores {:8.2f}, unpacked {:8.2f}, "
          "int{} few rows "
          "{:8.2f}, bf16 few "
          "rows {:8.2f}, cuBLASLt bf16 {:8.2f}\n",
          planes, rows, cols, m, looked_up * 1e6, bytes / looked_up / 1e9, multiplied * 1e6, unpacked * 1e6,
          planes == 1 ? 2 : planes, dequantised * 1e6, few * 1e6, blas * 1e6);
      std::fflush(stdout);
    }
  }
};

std::vector<int64_t> numbers(const std::string& text) {
  std::vector<int64_t> all;
  for (const char* p = text.c_str(); *p;) {
    char* end = nullptr;
    all.push_back(std::strtoll(p, &end, 10));
    p = *end ? end + 1 : end;
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int64_t> planes = {3}, rows = {1, 2, 4, 8, 16, 32, 64};
  bool sweep = false;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--sweep")
      sweep = true;
    else if (a == "--planes" && i + 1 < argc)
      planes = numbers(argv[++i]);
    else if (a == "--rows" && i + 1 < argc)
      rows = numbers(argv[++i]);
    else {
      fmt::print(stderr, "cuda_lookup_bench: unknown option {}\n", a);
      return 2;
    }
  }
  try {
    Bench bench;
    for (const int64_t q : planes) {
      bench.shape(int(q), 14336, 4096, rows, sweep);
      bench.shape(int(q), 4096, 14336, rows, sweep);
      bench.shape(int(q), 49152, 12288, rows, sweep);
    }
  } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
