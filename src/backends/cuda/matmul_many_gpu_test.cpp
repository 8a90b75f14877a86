// Products of rows of prompts against double on the CPU: every tile, odd shapes, every epilogue; and that a
// row's bits are the same among any other rows.
#include "backends/cuda/matmul_many.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "backends/cpu/row_kernels.h"
#include "backends/cuda/testing.h"

namespace cairn::cuda {
namespace {

using program::Activation;
using testing::as_bf16;
using testing::as_float;
using testing::normal;

struct Shape {
  int64_t m, n, k;
};

unsigned fresh_seed() {
  static unsigned seed = std::random_device{}();
  return seed++;
}

// The tiles of this device; on Hopper also those of older devices, which are its reference.
std::vector<ManyTile> all_tiles(int capability) {
  auto tiles = many_tiles(capability);
  if (capability == 90)
    for (const auto& tile : many_tiles(89)) tiles.push_back(tile);
  return tiles;
}
std::string name(const ManyTile& t) {
  return fmt::format("{}x{}x{} consumers {} cluster {}x{}", t.rows, t.columns, t.stages, t.consumers,
                     t.cluster_m, t.cluster_n);
}

struct Operands {
  std::vector<float> x, w, up, bias, add;
  Buffer x_bits, w_bits, up_bits, bias_data, add_data;

  Operands(testing::Gpu& gpu, Shape s) {
    const auto matrix = [&](int64_t rows, std::vector<float>& seen) {
      const auto bits = as_bf16(normal(size_t(rows * s.k), fresh_seed()));
      seen = as_float(bits);
      return gpu.upload(bits);
    };
    x_bits = matrix(s.m, x), w_bits = matrix(s.n, w), up_bits = matrix(s.n, up);
    bias = normal(size_t(s.n), fresh_seed(), 5), add = normal(size_t(s.m * s.n), fresh_seed(), 5);
    bias_data = gpu.upload(bias), add_data = gpu.upload(add);
  }
};

// x w^T and the sum of the sizes of what was added.
struct Sum {
  double value = 0, size = 0;
};
Sum dot(const std::vector<float>& x, const std::vector<float>& w, int64_t r, int64_t c, int64_t k) {
  Sum s;
  for (int64_t j = 0; j < k; ++j) {
    const double p = double(x[size_t(r * k + j)]) * w[size_t(c * k + j)];
    s.value += p, s.size += std::abs(p);
  }
  return s;
}

double activation(Activation a, double x) {
  const auto in = float(x);
  float out = 0;
  cpu::row_kernels(active_isa()).activate(a, &in, 1, &out);
  return out;
}

// Tensor cores add in f32 with fewer guard bits than an f32 addition has: twice its rounding per product, at
// most.
double tolerance(const Sum& s, int64_t k) { return s.size * double(k) * 0x1p-24 + 1e-6; }

struct Case {
  bool y_f32 = false, bias = false, gated = false, add = false, in_place = false;
  Activation activation = Activation::identity;
  float scale = 1, softcap = 0;
};

void check(testing::Gpu& gpu, Shape s, const ManyTile& tile, const Case& c) {
  SCOPED_TRACE(fmt::format(
      "{} m {} n {} k {} f32 {} bias {} gated {} add {} in place {} activation {} cap {}", name(tile), s.m,
      s.n, s.k, c.y_f32, c.bias, c.gated, c.add, c.in_place, program::to_string(c.activation), c.softcap));
  const Operands o(gpu, s);
  const auto count = size_t(s.m * s.n);
  Buffer y = c.in_place ? gpu.upload(o.add) : gpu.poisoned(count * (c.y_f32 ? 4 : 2));
  const DenseRows w{o.w_bits.address(), s.n, s.k}, up{o.up_bits.address(), s.n, s.k};
  MatMulCall call;
  call.x = o.x_bits.address(), call.m = s.m, call.y = y.address(), call.y_f32 = c.y_f32;
  call.bias = c.bias ? o.bias_data.address() : 0;
  call.add = c.in_place ? y.address() : c.add ? o.add_data.address() : 0;
  call.activation = c.activation, call.scale = c.scale, call.softcap = c.softcap;
  matmul_dense(gpu.kernels, gpu.stream, w, c.gated ? &up : nullptr, call, tile);
  const auto got = c.y_f32 ? gpu.download<float>(y) : as_float(gpu.download<uint16_t>(y));
  std::mt19937 random(fresh_seed());
  // All of a small result; of a large one its edges and a sample.
  const bool whole = s.m * s.n * s.k < 4'000'000;
  for (int64_t r = 0; r < s.m; ++r)
    for (int64_t col = 0; col < s.n; ++col) {
      const float v = got[size_t(r * s.n + col)];
      ASSERT_TRUE(std::isfinite(v)) << "row " << r << " column " << col << " was not written";
      if (!whole && random() % 64 != 0) continue;
      const Sum sum = dot(o.x, o.w, r, col, s.k);
      double want, allowed;
      if (c.gated) {
        const Sum other = dot(o.x, o.up, r, col, s.k);
        const double gate = activation(c.activation, sum.value);
        want = gate * other.value;
        allowed = 1.2 * tolerance(sum, s.k) * std::abs(other.value) + std::abs(gate) * tolerance(other, s.k);
        allowed += 1e-5 * std::abs(want);
      } else {
        want = sum.value * c.scale + (c.bias ? double(o.bias[size_t(col)]) : 0);
        if (c.softcap != 0) want = c.softcap * std::tanh(want / c.softcap);
        want = activation(c.activation, want);
        allowed = 1.2 * tolerance(sum, s.k) * c.scale + 4e-7 * (c.softcap + std::abs(want));
      }
      if (c.add || c.in_place) want += o.add[size_t(r * s.n + col)];
      allowed += std::abs(want) * (c.y_f32 ? 0x1p-23 : 0x1p-8);
      ASSERT_NEAR(v, want, allowed) << "row " << r << " column " << col;
    }
}

TEST(MatMulManyOnGpu, AgreesWithDoubleOnOddShapes) {
  CAIRN_NEED_GPU(gpu);
  const Shape shapes[] = {{1, 96, 96},    {5, 256, 64},    {17, 104, 8},   {64, 320, 200}, {129, 264, 136},
                          {300, 328, 96}, {257, 96, 1032}, {33, 4104, 64}, {130, 50, 72},  {3, 7, 16}};
  for (const auto& tile : all_tiles(gpu.device.facts().capability))
    for (const auto& s : shapes) {
      check(gpu, s, tile, {});
      check(gpu, s, tile, {.y_f32 = true, .bias = true});
      check(gpu, s, tile, {.gated = true, .activation = Activation::silu});
      if (HasFatalFailure()) return;
    }
}

TEST(MatMulManyOnGpu, EndsEveryWayTheExecutorAsksFor) {
  CAIRN_NEED_GPU(gpu);
  for (const auto& tile : all_tiles(gpu.device.facts().capability))
    for (const Shape& s : {Shape{70, 264, 128}, Shape{131, 101, 64}}) {
      check(gpu, s, tile, {.y_f32 = true, .in_place = true});
      check(gpu, s, tile, {.y_f32 = true, .bias = true, .in_place = true, .scale = 0.25f});
      check(gpu, s, tile, {.y_f32 = true, .bias = true, .add = true});
      check(gpu, s, tile, {.add = true});
      check(gpu, s, tile, {.y_f32 = true, .scale = 0.5f, .softcap = 30});
      for (const auto a : {Activation::relu, Activation::silu, Activation::gelu, Activation::gelu_tanh,
                           Activation::quick_gelu, Activation::sigmoid}) {
        check(gpu, s, tile, {.bias = true, .activation = a});
        check(gpu, s, tile, {.gated = true, .activation = a});
      }
      if (HasFatalFailure()) return;
    }
}

TEST(MatMulManyOnGpu, RowsDoNotDependOnTheirNeighbours) {
  CAIRN_NEED_GPU(gpu);
  const int capability = gpu.device.facts().capability;
  const int64_t rows = 2048, n = 520, k = 1096;
  const auto x = gpu.upload(as_bf16(normal(size_t(rows * k), fresh_seed())));
  const auto w = gpu.upload(as_bf16(normal(size_t(n * k), fresh_seed())));
  const auto up = gpu.upload(as_bf16(normal(size_t(n * k), fresh_seed())));
  const DenseRows weight{w.address(), n, k}, other{up.address(), n, k};
  for (const bool gated : {false, true})
    for (const bool y_f32 : {false, true}) {
      std::vector<uint8_t> whole;
      for (const auto& tile : many_tiles(capability))
        for (const auto& [first, m] :
             {std::pair<int64_t, int64_t>{0, 2048}, {17, 300}, {1000, 130}, {77, 5}, {2047, 1}}) {
          SCOPED_TRACE(fmt::format("{} rows {} from {} gated {} f32 {}", name(tile), m, first, gated, y_f32));
          const size_t row_bytes = size_t(n) * (y_f32 ? 4 : 2);
          const auto y = gpu.poisoned(size_t(m) * row_bytes);
          MatMulCall call;
          call.x = x.address() + uint64_t(first * k * 2), call.m = m, call.y = y.address(),
          call.y_f32 = y_f32;
          if (gated) call.activation = Activation::silu;
          matmul_dense(gpu.kernels, gpu.stream, weight, gated ? &other : nullptr, call, tile);
          const auto bits = gpu.download<uint8_t>(y);
          if (whole.empty()) whole = bits;
          ASSERT_TRUE(std::equal(bits.begin(), bits.end(),
                                 whole.begin() + std::ptrdiff_t(size_t(first) * row_bytes)));
        }
    }
}

TEST(MatMulManyOnGpu, RunsInsideALargerMatrixAndAGraph) {
  CAIRN_NEED_GPU(gpu);
  const Shape s{100, 192, 256};
  const int64_t stride = 448, offset = 64;
  const Operands o(gpu, s);
  const auto y = gpu.poisoned(size_t(s.m * stride) * 2);
  MatMulCall call;
  call.x = o.x_bits.address(), call.m = s.m, call.y = y.address() + uint64_t(offset * 2),
  call.y_stride = stride;
  const DenseRows w{o.w_bits.address(), s.n, s.k};
  matmul_dense(gpu.kernels, gpu.stream, w, nullptr, call);
  const auto direct = gpu.download<uint16_t>(y);
  gpu.stream.fill(y.address(), 0xff, y.size());
  call.overlap_previous = true;
  const auto graph = Graph::capture(gpu.stream, [&] {
    matmul_dense(gpu.kernels, gpu.stream, w, nullptr, call);
    matmul_dense(gpu.kernels, gpu.stream, w, nullptr, call);
  });
  graph.launch(gpu.stream);
  const auto replayed = gpu.download<uint16_t>(y);
  EXPECT_EQ(direct, replayed);
  for (int64_t r = 0; r < s.m; ++r)
    for (int64_t c = 0; c < stride; ++c)
      ASSERT_EQ(direct[size_t(r * stride + c)] == 0xffff, c < offset || c >= offset + s.n) << r << ' ' << c;
}

TEST(MatMulManyOnGpu, RefusesRowsThatDoNotBeginOn16Bytes) {
  CAIRN_NEED_GPU(gpu);
  MatMulCall call;
  call.m = 1;
  EXPECT_THROW(matmul_dense(gpu.kernels, gpu.stream, {256, 8, 20}, nullptr, call), std::exception);
}

}  // namespace
}  // namespace cairn::cuda
