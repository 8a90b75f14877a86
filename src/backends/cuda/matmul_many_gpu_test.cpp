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
  return fmt::format("{}x{}x{} consumers {}", t.rows, t.columns, t.stages, t.consumers);
}

// Compiles on all cores what the tests will use.
void prepare(testing::Gpu& gpu) {
  static bool done = false;
  if (done) return;
  done = true;
  auto all = matmul_many_stock(gpu.device.facts().capability);
  for (const auto& v : matmul_many_sm90_stock(gpu.device.facts().capability)) all.push_back(v);
  // Ends that no model's product has: added to bf16, and to rows that do not begin on 16 bytes.
  DeviceMatrix w;
  w.form = &form("bf16");
  for (const int64_t n : {264, 101})
    for (const bool y_f32 : {false, true})
      for (const uint64_t add : {0, 16, 32}) {
        w.rows = n, w.cols = 64, w.piece_bytes = size_t(n * 64) * 2;
        MatMulCall call;
        call.w = &w, call.y = 16, call.y_f32 = y_f32, call.add = add == 16 && !y_f32 ? 0 : add;
        for (auto& v : matmul_many_variants(gpu.device.facts().capability, {&call, 1}))
          all.push_back(std::move(v));
      }
  gpu.kernels.prepare(all);
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
  if (!many_tile_fits(tile, c.gated)) return;
  SCOPED_TRACE(fmt::format(
      "{} m {} n {} k {} f32 {} bias {} gated {} add {} in place {} activation {} cap {}", name(tile), s.m,
      s.n, s.k, c.y_f32, c.bias, c.gated, c.add, c.in_place, program::to_string(c.activation), c.softcap));
  const Operands o(gpu, s);
  const auto count = size_t(s.m * s.n);
  Buffer y = c.in_place ? gpu.upload(o.add) : gpu.poisoned(count * (c.y_f32 ? 4 : 2));
  const DenseRows w{.data = o.w_bits.address(), .n = s.n, .k = s.k},
      up{.data = o.up_bits.address(), .n = s.n, .k = s.k};
  MatMulCall call;
  call.x = o.x_bits.address(), call.m = s.m, call.y = y.address(), call.y_f32 = c.y_f32;
  call.bias = c.bias ? o.bias_data.address() : 0;
  call.add = c.in_place ? y.address() : c.add ? o.add_data.address() : 0;
  call.activation = c.activation, call.scale = c.scale, call.softcap = c.softcap;
  DenseOptions options;
  options.tile = &tile;
  matmul_dense(gpu.kernels, gpu.stream, w, c.gated ? &up : nullptr, call, options);
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
  prepare(gpu);
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
  prepare(gpu);
  for (const auto& tile : all_tiles(gpu.device.facts().capability))
    for (const Shape& s : {Shape{70, 264, 128}, Shape{131, 101, 64}}) {
      check(gpu, s, tile, {.y_f32 = true, .in_place = true});
      check(gpu, s, tile, {.y_f32 = true, .bias = true, .in_place = true, .scale = 0.25f});
      check(gpu, s, tile, {.y_f32 = true, .bias = true, .add = true});
      check(gpu, s, tile, {.add = true});
      check(gpu, s, tile, {.y_f32 = true, .scale = 0.5f, .softcap = 30});
      for (const auto a : {Activation::relu, Activation::silu, Activation::gelu, Activation::gelu_tanh,
                           Activation::quick_gelu, Activation::sigmoid}) {
        if (tile.columns != 128) continue;  // one tile of each kernel
        check(gpu, s, tile, {.bias = true, .activation = a});
        check(gpu, s, tile, {.gated = true, .activation = a});
      }
      if (HasFatalFailure()) return;
    }
}

TEST(MatMulManyOnGpu, RowsDoNotDependOnTheirNeighbours) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int capability = gpu.device.facts().capability;
  const int64_t rows = 2048, n = 520, k = 1096;
  const auto x = gpu.upload(as_bf16(normal(size_t(rows * k), fresh_seed())));
  const auto w = gpu.upload(as_bf16(normal(size_t(n * k), fresh_seed())));
  const auto up = gpu.upload(as_bf16(normal(size_t(n * k), fresh_seed())));
  const DenseRows weight{.data = w.address(), .n = n, .k = k}, other{.data = up.address(), .n = n, .k = k};
  for (const bool gated : {false, true})
    for (const bool y_f32 : {false, true}) {
      std::vector<uint8_t> whole;
      for (const auto& tile : many_tiles(capability)) {
        if (!many_tile_fits(tile, gated)) continue;
        for (const auto& [first, m] :
             {std::pair<int64_t, int64_t>{0, 2048}, {17, 300}, {1000, 130}, {77, 5}, {2047, 1}}) {
          SCOPED_TRACE(fmt::format("{} rows {} from {} gated {} f32 {}", name(tile), m, first, gated, y_f32));
          const size_t row_bytes = size_t(n) * (y_f32 ? 4 : 2);
          const auto y = gpu.poisoned(size_t(m) * row_bytes);
          MatMulCall call;
          call.x = x.address() + uint64_t(first * k * 2), call.m = m, call.y = y.address(),
          call.y_f32 = y_f32;
          if (gated) call.activation = Activation::silu;
          DenseOptions options;
          options.tile = &tile;
          matmul_dense(gpu.kernels, gpu.stream, weight, gated ? &other : nullptr, call, options);
          const auto bits = gpu.download<uint8_t>(y);
          if (whole.empty()) whole = bits;
          ASSERT_TRUE(std::equal(bits.begin(), bits.end(),
                                 whole.begin() + std::ptrdiff_t(size_t(first) * row_bytes)));
        }
      }
    }
}

TEST(MatMulManyOnGpu, RunsInsideALargerMatrixAndAGraph) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const Shape s{100, 192, 256};
  const int64_t stride = 448, offset = 64;
  const Operands o(gpu, s);
  const auto y = gpu.poisoned(size_t(s.m * stride) * 2);
  MatMulCall call;
  call.x = o.x_bits.address(), call.m = s.m, call.y = y.address() + uint64_t(offset * 2),
  call.y_stride = stride;
  const DenseRows w{.data = o.w_bits.address(), .n = s.n, .k = s.k};
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

// Tiles that follow one another at once: staged results must not be overwritten before they have left.
TEST(MatMulManyOnGpu, LeavesStagedResultsAloneUntilTheyHaveLeft) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int64_t m = 3000, n = 3208, k = 16;
  const auto x = gpu.upload(as_bf16(normal(size_t(m * k), fresh_seed())));
  const auto w = gpu.upload(as_bf16(normal(size_t(n * k), fresh_seed())));
  const DenseRows weight{.data = w.address(), .n = n, .k = k};
  for (const bool gated : {false, true})
    for (const bool y_f32 : {false, true}) {
      std::vector<uint8_t> first;
      for (const auto& tile : many_tiles(gpu.device.facts().capability)) {
        if (!many_tile_fits(tile, gated)) continue;
        SCOPED_TRACE(fmt::format("{} gated {} f32 {}", name(tile), gated, y_f32));
        const auto y = gpu.poisoned(size_t(m * n) * (y_f32 ? 4 : 2));
        MatMulCall call;
        call.x = x.address(), call.m = m, call.y = y.address(), call.y_f32 = y_f32;
        if (gated) call.activation = Activation::silu;
        DenseOptions options;
        options.tile = &tile;
        matmul_dense(gpu.kernels, gpu.stream, weight, gated ? &weight : nullptr, call, options);
        const auto bits = gpu.download<uint8_t>(y);
        if (first.empty()) first = bits;
        const auto at = std::mismatch(bits.begin(), bits.end(), first.begin()).first - bits.begin();
        ASSERT_EQ(size_t(at), bits.size())
            << "row " << at / (n * (y_f32 ? 4 : 2)) << " byte " << at % (n * (y_f32 ? 4 : 2));
      }
    }
}

// Each product reads what the one before it writes, and its weights before that one has ended.
TEST(MatMulManyOnGpu, ReadsWeightsEarlyAndRowsInTime) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int64_t size = 2048, layers = 12;
  std::vector<Buffer> weights;
  for (int i = 0; i < layers; ++i)
    weights.push_back(gpu.upload(as_bf16(normal(size_t(size * size), fresh_seed(), 0.03f))));
  const auto tiles = many_tiles(gpu.device.facts().capability);
  for (const int64_t m : {1, 48, 130, 256, 300}) {
    SCOPED_TRACE(m);
    const auto x = gpu.upload(as_bf16(normal(size_t(m * size), fresh_seed())));
    std::vector<Buffer> y;
    for (int i = 0; i < layers; ++i) y.push_back(gpu.poisoned(size_t(m * size) * 2));
    const auto chain = [&](bool early) {
      for (size_t i = 0; i < weights.size(); ++i) {
        MatMulCall call;
        call.x = i > 0 ? y[i - 1].address() : x.address(), call.m = m, call.y = y[i].address();
        call.overlap_previous = early;
        DenseOptions options;
        options.early = early, options.tile = &tiles[i % tiles.size()];
        matmul_dense(gpu.kernels, gpu.stream, {.data = weights[i].address(), .n = size, .k = size}, nullptr,
                     call, options);
      }
    };
    chain(false);
    std::vector<std::vector<uint16_t>> want;
    for (const auto& one : y) want.push_back(gpu.download<uint16_t>(one));
    const auto graph = Graph::capture(gpu.stream, [&] { chain(true); });
    for (int round = 0; round < 10; ++round) {
      for (const auto& one : y) gpu.stream.fill(one.address(), 0xff, one.size());
      graph.launch(gpu.stream);
      for (size_t i = 0; i < y.size(); ++i)
        ASSERT_EQ(gpu.download<uint16_t>(y[i]), want[i]) << "round " << round << " product " << i;
    }
  }
}

TEST(MatMulManyOnGpu, RefusesRowsThatDoNotBeginOn16Bytes) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  MatMulCall call;
  call.m = 1;
  EXPECT_THROW(matmul_dense(gpu.kernels, gpu.stream, {.data = 256, .n = 8, .k = 20}, nullptr, call),
               std::exception);
}

TEST(MatMulManyOnGpu, JoinsProductsWithoutChangingABit) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int64_t k = 1096, ns[3] = {1032, 136, 264};
  for (const int64_t m : {1, 130, 700})
    for (const bool y_f32 : {false, true})
      for (const size_t together : {size_t{2}, size_t{3}}) {
        SCOPED_TRACE(fmt::format("m {} f32 {} together {}", m, y_f32, together));
        const auto x = gpu.upload(as_bf16(normal(size_t(m * k), fresh_seed())));
        std::vector<DeviceMatrix> w(together);
        std::vector<Buffer> bias, y, alone;
        std::vector<MatMulCall> calls(together);
        ManyScratch none;
        for (size_t i = 0; i < together; ++i) {
          const int64_t n = ns[i];
          w[i].form = &form("bf16"), w[i].rows = n, w[i].cols = k, w[i].piece_bytes = size_t(n * k) * 2;
          w[i].own = gpu.upload(as_bf16(normal(size_t(n * k), fresh_seed())));
          w[i].data = w[i].own.address();
          bias.push_back(gpu.upload(normal(size_t(n), fresh_seed(), 50)));
          y.push_back(gpu.poisoned(size_t(m * n) * (y_f32 ? 4 : 2)));
          alone.push_back(gpu.poisoned(y[i].size()));
          calls[i].w = &w[i], calls[i].x = x.address(), calls[i].m = m, calls[i].y = alone[i].address();
          calls[i].y_f32 = y_f32, calls[i].bias = i == 1 ? 0 : bias[i].address();
          matmul_many(gpu.kernels, gpu.stream, calls[i], none);
          calls[i].y = y[i].address();
        }
        matmul_many(gpu.kernels, gpu.stream, calls, none);
        for (size_t i = 0; i < together; ++i)
          EXPECT_EQ(gpu.download<uint8_t>(y[i]), gpu.download<uint8_t>(alone[i])) << i;
      }
}

TEST(MatMulManyOnGpu, MultipliesEachRowWithItsExpert) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const std::vector<int32_t> begins = {0, 3, 3, 132, 133, 133, 297, 300};
  const int64_t experts = int64_t(begins.size()) - 1, m = begins.back(), n = 264, k = 136;
  const Operands o(gpu, {m, n * experts, k});
  const auto begins_data = gpu.upload(begins);
  for (const bool gated : {false, true})
    for (const auto& tile : all_tiles(gpu.device.facts().capability)) {
      if (!many_tile_fits(tile, gated)) continue;
      SCOPED_TRACE(fmt::format("{} gated {}", name(tile), gated));
      const auto y = gpu.poisoned(size_t(m * n) * 2);
      const DenseRows w{.data = o.w_bits.address(), .n = n, .k = k},
          up{.data = o.up_bits.address(), .n = n, .k = k};
      MatMulCall call;
      call.x = o.x_bits.address(), call.m = m, call.y = y.address();
      if (gated)
        call.activation = Activation::silu;
      else
        call.bias = o.bias_data.address();
      DenseOptions options;
      options.tile = &tile, options.experts = {begins_data.address(), experts};
      matmul_dense(gpu.kernels, gpu.stream, w, gated ? &up : nullptr, call, options);
      const auto got = as_float(gpu.download<uint16_t>(y));
      for (int64_t e = 0; e < experts; ++e)
        for (int64_t r = begins[size_t(e)]; r < begins[size_t(e) + 1]; ++r)
          for (int64_t c = 0; c < n; ++c) {
            const Sum sum = dot(o.x, o.w, r, e * n + c, k);
            double want = sum.value + o.bias[size_t(e * n + c)], allowed = tolerance(sum, k);
            if (gated) {
              const Sum other = dot(o.x, o.up, r, e * n + c, k);
              const double gate = activation(call.activation, sum.value);
              want = gate * other.value;
              allowed = 1.2 * allowed * std::abs(other.value) + std::abs(gate) * tolerance(other, k);
            }
            ASSERT_NEAR(got[size_t(r * n + c)], want, allowed + std::abs(want) * 0x1p-8)
                << "row " << r << " of expert " << e << " column " << c;
          }
    }
}

TEST(MatMulManyOnGpu, SortsRowsByTheExpertsTheyChoose) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int64_t tokens = 150, top_k = 3, pairs = tokens * top_k, experts = 37, n = 104, k = 72;
  std::mt19937 random(fresh_seed());
  std::vector<int32_t> chosen;
  for (int64_t p = 0; p < pairs; ++p) chosen.push_back(int32_t(random() % 5 == 0 ? 36 : random() % 30));
  const auto chosen_data = gpu.upload(chosen);
  for (const int64_t share : {top_k, int64_t{1}}) {
    const Operands o(gpu, {pairs, n * experts, k});
    const auto room = gpu.poisoned(expert_room(pairs, experts, k));
    const auto sorted = sort_by_expert(gpu.kernels, gpu.stream, o.x_bits.address(), k, chosen_data.address(),
                                       pairs, share, experts, room.address());
    DeviceMatrix w;
    w.form = &form("bf16"), w.rows = n, w.cols = k, w.pieces = experts, w.piece_bytes = size_t(n * k) * 2;
    w.data = o.w_bits.address();
    ManyScratch none;
    const auto y = gpu.poisoned(size_t(pairs * n) * 4);
    MatMulCall call;
    call.w = &w, call.x = sorted.x, call.m = pairs, call.y = y.address(), call.y_f32 = true;
    matmul_many_experts(gpu.kernels, gpu.stream, call, sorted.experts, none);
    const auto got = gpu.download<float>(y);
    for (int64_t p = 0; p < pairs; ++p)
      for (int64_t c = 0; c < n; ++c) {
        const Sum sum = dot(o.x, o.w, p / share, chosen[size_t(p)] * n + c, k);
        ASSERT_NEAR(got[size_t(p * n + c)], sum.value, tolerance(sum, k)) << "pair " << p << " column " << c;
      }
  }
}

// Random codes with small scales in any form: bytes below 0x40 are finite as f16 and bf16.
DeviceMatrix random_matrix(testing::Gpu& gpu, const char* form_name, int64_t rows, int64_t cols,
                           int64_t pieces = 1) {
  DeviceMatrix w;
  w.form = &form(form_name);
  w.rows = rows, w.cols = cols, w.pieces = pieces, w.piece_bytes = packed_bytes(*w.form, rows, cols);
  std::vector<uint8_t> bytes(w.piece_bytes * size_t(pieces));
  std::mt19937 random(fresh_seed());
  for (auto& b : bytes) b = uint8_t(random() & 0x3f);
  w.own = gpu.upload(bytes);
  w.data = w.own.address();
  return w;
}

TEST(MatMulManyOnGpu, UnpacksPieceByPiece) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  for (const char* name : {"q4_k", "q6_k", "q8_0", "f16"})
    for (const bool gated : {false, true}) {
      SCOPED_TRACE(fmt::format("{} gated {}", name, gated));
      const int64_t m = 150, n = 3000, k = 16384;
      const auto w = random_matrix(gpu, name, n, k), up = random_matrix(gpu, name, n, k);
      const auto x = gpu.upload(as_bf16(normal(size_t(m * k), fresh_seed())));
      const auto bias = gpu.upload(normal(size_t(n), fresh_seed(), 100));
      const auto scratch = gpu.poisoned(matmul_many_scratch(w, gated));
      ASSERT_LT(scratch.size() / 2, size_t(n * k * 2)) << "one piece would not test the others";
      const auto got = gpu.poisoned(size_t(m * n) * 2), want = gpu.poisoned(size_t(m * n) * 2);
      MatMulCall call;
      call.w = &w, call.up = gated ? &up : nullptr, call.x = x.address(), call.m = m, call.y = got.address();
      if (gated)
        call.activation = Activation::silu;
      else
        call.bias = bias.address();
      matmul_many(gpu.kernels, gpu.stream, call, scratch.address());

      const auto whole = gpu.poisoned(size_t(n * k) * 2), whole_up = gpu.poisoned(size_t(n * k) * 2);
      unpack_rows(gpu.kernels, gpu.stream, w, 0, 0, n, whole.address());
      unpack_rows(gpu.kernels, gpu.stream, up, 0, 0, n, whole_up.address());
      call.y = want.address();
      const DenseRows rows{.data = whole.address(), .n = n, .k = k},
          others{.data = whole_up.address(), .n = n, .k = k};
      matmul_dense(gpu.kernels, gpu.stream, rows, gated ? &others : nullptr, call);
      const auto wanted = gpu.download<uint16_t>(want);
      EXPECT_EQ(gpu.download<uint16_t>(got), wanted);

      // Products that follow one another at once, pieces of one beside products of the other.
      ManyScratch halves{scratch.address(), matmul_many_half(w, gated)};
      const auto again = gpu.poisoned(size_t(m * n) * 2);
      call.overlap_previous = true;
      for (int i = 0; i < 5; ++i) {
        call.y = i % 2 ? again.address() : got.address();
        gpu.stream.fill(call.y, 0xff, again.size());
        matmul_many(gpu.kernels, gpu.stream, call, halves);
      }
      EXPECT_EQ(gpu.download<uint16_t>(got), wanted);
      EXPECT_EQ(gpu.download<uint16_t>(again), wanted);
    }
}

// Unpacked on the way or before: the same bits.
TEST(MatMulManyOnGpu, MultipliesPackedWeightsAsUnpackedOnes) {
  CAIRN_NEED_GPU(gpu);
  if (!can_multiply_packed(gpu.device.facts().capability, random_matrix(gpu, "q4_k", 8, 256)))
    GTEST_SKIP() << "not tested: this GPU has no kernel for packed weights and many rows";
  for (const auto& f : forms()) {
    if (f.layout != Layout::blocks) continue;
    SCOPED_TRACE(f.name);
    for (const auto& tile : packed_tiles())
      for (const Shape& s :
           {Shape{1, 8, 256}, Shape{70, 264, 200}, Shape{200, 520, 1096}, Shape{300, 136, 64}})
        for (const bool gated : {false, true}) {
          SCOPED_TRACE(fmt::format("{} m {} n {} k {} gated {}", name(tile), s.m, s.n, s.k, gated));
          const std::string form_name(f.name);
          const auto w = random_matrix(gpu, form_name.c_str(), s.n, s.k),
                     up = random_matrix(gpu, form_name.c_str(), s.n, s.k);
          const auto x = gpu.upload(as_bf16(normal(size_t(s.m * s.k), fresh_seed())));
          const auto bias = gpu.upload(normal(size_t(s.n), fresh_seed(), 10));
          const auto got = gpu.poisoned(size_t(s.m * s.n) * 2), want = gpu.poisoned(got.size());
          const auto scratch = gpu.poisoned(matmul_many_scratch(w, gated));
          MatMulCall call;
          call.w = &w, call.up = gated ? &up : nullptr, call.x = x.address(), call.m = s.m;
          call.y = want.address();
          if (gated)
            call.activation = Activation::silu;
          else
            call.bias = bias.address();
          matmul_many(gpu.kernels, gpu.stream, call, scratch.address());
          call.y = got.address();
          DenseOptions options;
          options.tile = &tile;
          matmul_packed(gpu.kernels, gpu.stream, call, options);
          const auto a = gpu.download<uint16_t>(got), b = gpu.download<uint16_t>(want);
          for (size_t i = 0; i < a.size(); ++i)
            ASSERT_EQ(a[i], b[i]) << "row " << i / size_t(s.n) << " column " << i % size_t(s.n);
        }
  }
}

TEST(MatMulManyOnGpu, UnpacksExpertsTogether) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int64_t experts = 16, n = 768, k = 4096, m = 500;
  std::vector<int32_t> begins = {0};
  std::mt19937 random(fresh_seed());
  for (int64_t e = 1; e < experts; ++e)
    begins.push_back(std::min<int32_t>(begins.back() + int32_t(random() % 64), m));
  begins.push_back(m);
  const auto begins_data = gpu.upload(begins);
  const auto w = random_matrix(gpu, "q4_k", n, k, experts);
  const auto x = gpu.upload(as_bf16(normal(size_t(m * k), fresh_seed())));
  const size_t half = size_t(5 * n * k * 2);  // room for five experts at a time
  const auto scratch = gpu.poisoned(2 * half);
  ManyScratch halves{scratch.address(), half};
  const auto y = gpu.poisoned(size_t(m * n) * 2);
  MatMulCall call;
  call.w = &w, call.x = x.address(), call.m = m, call.y = y.address();
  matmul_many_experts(gpu.kernels, gpu.stream, call, {begins_data.address(), experts}, halves);
  const auto got = gpu.download<uint16_t>(y);
  const auto whole = gpu.poisoned(size_t(n * k) * 2), want = gpu.poisoned(size_t(m * n) * 2);
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t first = begins[size_t(e)], count = begins[size_t(e) + 1] - first;
    unpack_rows(gpu.kernels, gpu.stream, w, e, 0, n, whole.address());
    MatMulCall one = call;
    one.x += uint64_t(first * k * 2), one.m = count, one.y = want.address() + uint64_t(first * n * 2);
    matmul_dense(gpu.kernels, gpu.stream, {.data = whole.address(), .n = n, .k = k}, nullptr, one);
  }
  EXPECT_EQ(got, gpu.download<uint16_t>(want));
}

float of_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float v =
      exponent == 0 ? float(std::ldexp(mantissa, -9)) : float(std::ldexp(8 + mantissa, exponent - 10));
  return code & 0x80 ? -v : v;
}

TEST(MatMulManyOnGpu, MultipliesE4m3WithItsScales) {
  CAIRN_NEED_GPU(gpu);
  prepare(gpu);
  const int capability = gpu.device.facts().capability;
  if (many_tiles(capability, DenseRows::Element::e4m3).empty())
    GTEST_SKIP() << "not tested: this GPU has no kernel for e4m3";
  for (const Shape& s : {Shape{1, 128, 128}, Shape{130, 264, 400}, Shape{300, 520, 1024}}) {
    const auto bits = as_bf16(normal(size_t(s.m * s.k), fresh_seed(), 3));
    const auto x = gpu.upload(bits);
    const auto codes = gpu.poisoned(size_t(s.m * s.k)), x_scales = gpu.poisoned(size_t(s.m) * 4);
    quantize_rows(gpu.kernels, gpu.stream, x.address(), s.m, s.k, codes.address(), x_scales.address());
    const auto x_codes = gpu.download<uint8_t>(codes);
    const auto row_scales = gpu.download<float>(x_scales);
    std::vector<float> seen(x_codes.size());
    for (size_t i = 0; i < seen.size(); ++i) {
      const float scale = row_scales[i / size_t(s.k)], value = testing::of_bf16(bits[i]);
      seen[i] = of_e4m3(x_codes[i]);
      // Half a step of three bits of mantissa, or of the smallest numbers.
      ASSERT_NEAR(seen[i] * scale, value, std::abs(value) * (1 / 15.9f) + scale * 0x1p-10f) << i;
    }
    std::mt19937 random(fresh_seed());
    std::vector<uint8_t> w_codes[2];
    std::vector<float> w_values[2];
    for (int i = 0; i < 2; ++i)
      for (int64_t j = 0; j < s.n * s.k; ++j) {
        auto code = uint8_t(random());
        if ((code & 0x7f) == 0x7f) code = 0;  // NaN
        w_codes[i].push_back(code), w_values[i].push_back(of_e4m3(code));
      }
    const auto w_data = gpu.upload(w_codes[0]), up_data = gpu.upload(w_codes[1]);
    const int64_t k_blocks = (s.k + 127) / 128;
    std::vector<float> scales = normal(size_t(std::max(s.n, (s.n + 127) / 128 * k_blocks)), fresh_seed());
    const auto scales_data = gpu.upload(scales);
    for (const bool blocks : {false, true})
      for (const bool gated : {false, true})
        for (const auto& tile : many_tiles(capability, DenseRows::Element::e4m3, blocks)) {
          SCOPED_TRACE(
              fmt::format("{} m {} n {} k {} blocks {} gated {}", name(tile), s.m, s.n, s.k, blocks, gated));
          DenseRows w{.data = w_data.address(),
                      .n = s.n,
                      .k = s.k,
                      .element = DenseRows::Element::e4m3,
                      .scales = scales_data.address(),
                      .block_scales = blocks};
          DenseRows up = w;
          up.data = up_data.address();
          const auto y = gpu.poisoned(size_t(s.m * s.n) * 2);
          MatMulCall call;
          call.x = codes.address(), call.m = s.m, call.y = y.address();
          DenseOptions options;
          options.tile = &tile, options.x_scales = x_scales.address();
          matmul_dense(gpu.kernels, gpu.stream, w, gated ? &up : nullptr, call, options);
          const auto got = as_float(gpu.download<uint16_t>(y));
          const auto scaled = [&](int which, int64_t r, int64_t c) {
            Sum sum;
            double largest = 0, part = 0, lost = 0;
            for (int64_t j = 0; j < s.k; ++j) {
              const float scale = blocks ? scales[size_t(c / 128 * k_blocks + j / 128)] : scales[size_t(c)];
              const double p =
                  double(seen[size_t(r * s.k + j)]) * w_values[which][size_t(c * s.k + j)] * scale;
              sum.value += p, sum.size += std::abs(p);
              // The matrix units add 32 products and the sum so far with 13 bits behind the largest of these;
              // block scales begin a sum anew every 128 columns.
              part += p, largest = std::max({largest, std::abs(p), std::abs(part)});
              if (j % 32 == 31 || j + 1 == s.k) lost += 33 * 0x1p-13 * largest, largest = std::abs(part);
              if (blocks && j % 128 == 127) part = largest = 0;
            }
            lost += sum.size * 0x1p-22;
            return Sum{sum.value * row_scales[size_t(r)], lost * std::abs(row_scales[size_t(r)])};
          };
          for (int64_t r = 0; r < s.m; r += 3)
            for (int64_t c = 0; c < s.n; c += 5) {
              const Sum sum = scaled(0, r, c);
              double want = sum.value, allowed = sum.size;
              if (gated) {
                const Sum other = scaled(1, r, c);
                want *= other.value;
                allowed = allowed * (std::abs(other.value) + other.size) + std::abs(sum.value) * other.size;
              }
              ASSERT_NEAR(got[size_t(r * s.n + c)], want, allowed + std::abs(want) * 0x1p-8) << r << ' ' << c;
            }
        }
  }
}

}  // namespace
}  // namespace cairn::cuda
