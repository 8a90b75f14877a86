// Products of few rows, and the unpacking of weights, against double on the CPU.
#include "backends/cuda/matmul_few.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "backends/cuda/matmul_few_sm90.h"
#include "backends/cuda/matmul_row.h"
#include "backends/cuda/testing.h"
#include "base/checked.h"
#include "base/float16.h"

namespace cairn::cuda {
namespace {

using testing::Gpu;
using testing::normal;

// A matrix in a form, with the values that it stands for.
struct Sample {
  DeviceMatrix matrix;
  std::vector<float> values, few;  // few: as products of few rows multiply them
};

// Random codes; the f16 and bf16 fields of random bytes below 0x40 are small and finite.
Sample sample(Gpu& gpu, const Form& f, int64_t rows, int64_t cols, unsigned seed, bool values = true) {
  std::mt19937 random(seed);
  Sample s;
  s.matrix.form = &f;
  s.matrix.rows = rows, s.matrix.cols = cols;
  s.matrix.piece_bytes = packed_bytes(f, rows, cols);
  std::vector<std::byte> packed(s.matrix.piece_bytes);
  if (f.layout == Layout::blocks) {
    const int sections = f.group > 128 ? 1 : f.chunk / 128;
    const size_t block = size_t(f.block_bytes()), rows_at = block - size_t(8 * f.row_scale_bytes()),
                 scales_at = rows_at - size_t(8 * sections * f.section_scale_bytes());
    for (size_t i = 0; i < packed.size(); ++i) {
      const auto byte = random();
      const bool integer = i % block < scales_at || (i % block < rows_at && f.row_scale_bytes() > 0);
      packed[i] = std::byte(integer                    ? byte
                            : f.scales == Scales::e8m0 ? (byte & 0x0f) | 0x70  // 2^-16 to 2^-1
                                                       : byte & 0x3f);
    }
  } else {
    for (size_t i = 0; i + 1 < packed.size(); i += 2) {
      const float v = std::normal_distribution<float>()(random);
      const uint16_t h = f.layout == Layout::bf16_rows ? float_to_bf16(v) : float_to_f16(v);
      std::memcpy(packed.data() + i, &h, 2);
    }
  }
  if (f.scales == Scales::half_zero)  // -(128 + zero), zero in 0..15; 128 - zero, zero in 0..255
    for (size_t at = 0; at + size_t(f.block_bytes()) <= packed.size(); at += size_t(f.block_bytes()))
      for (int i = 0; i < 2 * f.section_scale_bytes(); ++i) {
        const uint16_t offset =
            float_to_bf16(f.bits == 8 ? 128.0f - float(random() % 256) : -128.0f - float(random() % 16));
        std::memcpy(packed.data() + at + size_t(f.block_bytes() - 8 * f.section_scale_bytes() + i * 4 + 2),
                    &offset, 2);
      }
  if (f.levels == Levels::e4m3)  // no NaN
    for (auto& byte : packed)
      if ((uint8_t(byte) & 0x7f) == 0x7f) byte &= std::byte{0xfe};
  for (int64_t r = 0; values && r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      s.values.push_back(packed_value(f, packed.data(), rows, cols, r, c));
      s.few.push_back(few_value(f, packed.data(), rows, cols, r, c));
    }
  s.matrix.own = gpu.upload(packed);
  s.matrix.data = s.matrix.own.address();
  return s;
}

constexpr RowTiling kRowTilings[] = {{2, 2, 1, 1}, {1, 3, 1, 4}, {2, 3, 1, 2}};

struct Wanted {
  std::vector<double> y, magnitude;  // [m, rows]
};
Wanted product(const std::vector<float>& w, int64_t rows, int64_t cols, const std::vector<float>& x,
               int64_t m) {
  Wanted out{std::vector<double>(size_t(m * rows)), std::vector<double>(size_t(m * rows))};
  for (int64_t t = 0; t < m; ++t)
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, magnitude = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const double v = double(x[size_t(t * cols + c)]) * w[size_t(r * cols + c)];
        sum += v, magnitude += std::abs(v);
      }
      out.y[size_t(t * rows + r)] = sum, out.magnitude[size_t(t * rows + r)] = magnitude;
    }
  return out;
}

// x and weights are bf16 and products exact in f32, so that only additions round: the tensor cores cut sums
// of 16 products at 2^-23 of the largest, and a part has at most 1000 of them.
constexpr double kSumError = 1e-5;

void expect_product(const std::vector<float>& got, const Wanted& wanted, double relative,
                    const std::string& what) {
  ASSERT_EQ(got.size(), wanted.y.size());
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], wanted.y[i],
                kSumError * wanted.magnitude[i] + relative * std::abs(wanted.y[i]) + 1e-30)
        << what << " at " << i;
}

std::vector<float> run_few(Gpu& gpu, const DeviceMatrix& w, const Buffer& x, int64_t m,
                           const FewTiling* tiling = nullptr) {
  MatMulCall call;
  call.w = &w, call.x = x.address(), call.m = m, call.y_f32 = true;
  const auto y = gpu.poisoned(size_t(m * w.rows) * 4);
  call.y = y.address();
  if (tiling)
    matmul_few(gpu.kernels, gpu.stream, std::span(&call, 1), *tiling);
  else
    matmul_few(gpu.kernels, gpu.stream, call);
  return gpu.download<float>(y);
}

// Compiled together: what the tests of a form need.
void prepare(Gpu& gpu, const Form& f) {
  static std::map<const Form*, bool> done;
  if (std::exchange(done[&f], true)) return;
  const auto& facts = gpu.device.facts();
  auto all = matmul_few_variants(f, 4096, 4096, false, facts);
  all.push_back(unpack_variant(f));
  if (f.layout == Layout::blocks) all.push_back(embed_packed_variant(f));
  if (has_matmul_row(f, 4096, facts)) {
    for (const RowTiling& t : kRowTilings) all.push_back(row_variant(f, t, false));
    for (auto& v : matmul_row_variants(f, 8, 256, false, facts)) all.push_back(std::move(v));
  }
  gpu.kernels.prepare(all);
}

class MatMulFew : public ::testing::TestWithParam<const Form*> {};

TEST_P(MatMulFew, AgreesWithDoubleForAnyRows) {
  CAIRN_NEED_GPU(gpu);
  const Form& f = *GetParam();
  prepare(gpu, f);
  const int64_t unit = f.layout == Layout::blocks ? std::max(32, f.chunk == 256 ? 256 : 32) : 32;
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{8, 256}, {24, unit * 3}, {100, 2048}, {515, unit * 11}}) {
    const auto s = sample(gpu, f, rows, cols, unsigned(rows));
    for (const int64_t m : {1, 2, 3, 7, 8, 9, 16, 17, 33, 64, 65, 130}) {
      if (rows == 515 && m > 17 && m != 64) continue;
      const auto bits = testing::as_bf16(normal(size_t(m * cols), unsigned(m)));
      const auto x = gpu.upload(bits);
      expect_product(run_few(gpu, s.matrix, x, m), product(s.few, rows, cols, testing::as_float(bits), m), 0,
                     fmt::format("{} [{}, {}] m {}", f.name, rows, cols, m));
    }
  }
}

TEST_P(MatMulFew, RowsDoNotDependOnOtherRows) {
  CAIRN_NEED_GPU(gpu);
  const Form& f = *GetParam();
  prepare(gpu, f);
  for (const int64_t rows : {264, 4096}) {  // 4096: the tiling of many row tiles
    const int64_t cols = 2560, m = 66;
    const auto s = sample(gpu, f, rows, cols, 5, false);
    const auto bits = testing::as_bf16(normal(size_t(m * cols), 6));
    const auto x = gpu.upload(bits);
    const auto all = run_few(gpu, s.matrix, x, m);
    for (const int64_t few : {1, 2, 8, 9, 16, 20, 32, 33, 64}) {
      const auto some = run_few(gpu, s.matrix, x, few);
      ASSERT_EQ(std::memcmp(some.data(), all.data(), some.size() * 4), 0) << f.name << " m " << few;
    }
    const std::vector<uint16_t> last(bits.end() - cols, bits.end());
    const auto alone = run_few(gpu, s.matrix, gpu.upload(last), 1);
    ASSERT_EQ(std::memcmp(alone.data(), all.data() + (m - 1) * rows, alone.size() * 4), 0) << f.name;
  }
}

TEST_P(MatMulFew, UnpacksToRoundedValues) {
  CAIRN_NEED_GPU(gpu);
  const Form& f = *GetParam();
  const int64_t rows = 37, cols = 768;
  const auto s = sample(gpu, f, rows, cols, 9);
  const auto y = gpu.poisoned(size_t(29 * cols) * 2);
  unpack_rows(gpu.kernels, gpu.stream, s.matrix, 0, 8, 29, y.address());
  const auto got = gpu.download<uint16_t>(y);
  for (size_t i = 0; i < got.size(); ++i) {
    const float wanted = s.values[size_t(8 * cols) + i];
    // d s (128 + q) less 128 d s: scales are below 2 * 64 here, and cancellation leaves 2^-23 of 128 of them
    const double tolerance = 2e-3;
    ASSERT_NEAR(bf16_to_float(got[i]), wanted, std::abs(wanted) / 256 + tolerance) << f.name << " at " << i;
  }
}

TEST_P(MatMulFew, LooksUpRowsOfATable) {
  CAIRN_NEED_GPU(gpu);
  const Form& f = *GetParam();
  if (f.layout != Layout::blocks) GTEST_SKIP() << "rows are looked up as they are";
  const int64_t rows = 45, cols = 768;
  const auto s = sample(gpu, f, rows, cols, 10);
  const std::vector<int32_t> ids = {0, 43, 7, 8, 8, 31, 1, 39, 13, 22};
  const auto id_buffer = gpu.upload(ids);
  const auto y = gpu.poisoned(ids.size() * size_t(cols) * 4);
  embed_packed(gpu.kernels, gpu.stream, s.matrix, id_buffer.address(), y.address(), int64_t(ids.size()) - 1,
               1.5f, 1);
  const auto got = gpu.download<float>(y);
  for (size_t i = 0; i + 1 < ids.size(); ++i)
    for (int64_t c = 0; c < cols; ++c) {
      const float wanted = 1.5f * s.values[size_t((ids[i] + 1) * cols + c)];
      // d s (128 + q) less 128 d s: rounded at 2^-24 of 256 times scales below 128; times 1.5
      ASSERT_NEAR(got[i * size_t(cols) + size_t(c)], wanted, std::abs(wanted) * 1e-6 + 6e-3)
          << f.name << " id " << ids[i] << " column " << c;
    }
  for (int64_t c = 0; c < cols; ++c)
    ASSERT_TRUE(std::isnan(got[(ids.size() - 1) * size_t(cols) + size_t(c)])) << "written past the last row";
}

std::vector<float> run_row(Gpu& gpu, const DeviceMatrix& w, const Buffer& x, int64_t m,
                           const RowTiling* tiling = nullptr) {
  MatMulCall call;
  call.w = &w, call.x = x.address(), call.m = m, call.y_f32 = true;
  const auto y = gpu.poisoned(size_t(m * w.rows) * 4);
  call.y = y.address();
  if (tiling)
    matmul_row(gpu.kernels, gpu.stream, std::span(&call, 1), *tiling);
  else
    matmul_row(gpu.kernels, gpu.stream, std::span(&call, 1));
  return gpu.download<float>(y);
}

TEST_P(MatMulFew, RowsAloneAgreeWithDouble) {
  CAIRN_NEED_GPU(gpu);
  const Form& f = *GetParam();
  if (!has_matmul_row(f, 4096, gpu.device.facts())) GTEST_SKIP() << "no integer codes";
  prepare(gpu, f);
  const int64_t unit = std::max(32, f.chunk == 256 ? 256 : 32);
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{8, 256}, {24, unit * 3}, {100, 2048}, {515, unit * 11}, {4100, 4096}}) {
    const auto s = sample(gpu, f, rows, cols, unsigned(rows));
    const int64_t m = rows == 4100 ? 1 : 3;
    auto values = normal(size_t(m * cols), unsigned(cols));
    for (size_t i = 5; i < values.size(); i += 97) values[i] *= 100;  // largest ones that coarsen the units
    const auto bits = testing::as_bf16(values);
    values = testing::as_float(bits);
    const auto x = gpu.upload(bits);
    const auto wanted = product(s.values, rows, cols, values, m);
    const auto got = run_row(gpu, s.matrix, x, m);
    for (int64_t t = 0; t < m; ++t)
      for (int64_t r = 0; r < rows; ++r) {
        double units = 0;  // half a unit times |weights|
        for (int64_t begin = 0; begin < cols; begin += 128) {
          double largest = 0, weights = 0;
          for (int64_t c = begin; c < std::min(begin + 128, cols); ++c) {
            largest = std::max(largest, std::abs(double(values[size_t(t * cols + c)])));
            weights += std::abs(double(s.values[size_t(r * cols + c)]));
          }
          units += largest / 32512 / 2 * weights;
        }
        const auto at = size_t(t * rows + r);
        ASSERT_NEAR(got[at], wanted.y[at], 1.01 * units + kSumError * wanted.magnitude[at])
            << f.name << " [" << rows << ", " << cols << "] row " << r << " of x row " << t;
      }
    for (const RowTiling& t : kRowTilings) {
      if (row_shared_bytes(f, t, cols) > gpu.device.facts().shared_per_block) continue;
      const auto other = run_row(gpu, s.matrix, x, m, &t);
      ASSERT_EQ(std::memcmp(other.data(), got.data(), got.size() * 4), 0)
          << f.name << " [" << rows << ", " << cols << "] " << row_variant(f, t, false).id();
    }
  }
}

TEST(MatMulRow, EpiloguesAreThoseOfFewRows) {
  CAIRN_NEED_GPU(gpu);
  for (const char* name : {"q4_k", "q6_k"}) {
    const Form& f = form(name);
    const int64_t rows = 100, cols = 512, m = 2;
    const auto s = sample(gpu, f, rows, cols, 1), u = sample(gpu, f, rows, cols, 2);
    const auto bits = testing::as_bf16(normal(size_t(m * cols), 3, 0.01f));
    const auto x = gpu.upload(bits);
    const auto gate = product(s.values, rows, cols, testing::as_float(bits), m),
               up = product(u.values, rows, cols, testing::as_float(bits), m);
    MatMulCall call;
    call.w = &s.matrix, call.up = &u.matrix, call.x = x.address(), call.m = m;
    call.activation = program::Activation::silu;
    const auto y = gpu.poisoned(size_t(m * rows) * 2);
    call.y = y.address();
    matmul_row(gpu.kernels, gpu.stream, std::span(&call, 1));
    const auto got = testing::as_float(gpu.download<uint16_t>(y));
    for (size_t i = 0; i < got.size(); ++i) {
      const double wanted = gate.y[i] / (1 + std::exp(-gate.y[i])) * up.y[i];
      // Half a unit is 2^-16 of the largest x of 128, which is below 5 times the mean here.
      const double share = 1e-4 + kSumError, error = share * (1.1 * gate.magnitude[i] * std::abs(up.y[i]) +
                                                              std::abs(gate.y[i]) * up.magnitude[i]);
      ASSERT_NEAR(got[i], wanted, std::abs(wanted) / 256 + error + 1e-6) << name << " gated at " << i;
    }
    // Three matrices, odd rows, with the residual on the first.
    const auto v = sample(gpu, f, 44, cols, 3), w = sample(gpu, f, 13, cols, 4);
    const auto add = normal(size_t(m * rows), 5);
    std::vector<Buffer> outputs;
    std::vector<MatMulCall> calls;
    for (const auto* each : {&s, &v, &w}) {
      outputs.push_back(each == &s ? gpu.upload(add) : gpu.poisoned(size_t(m * each->matrix.rows) * 4));
      MatMulCall c;
      c.w = &each->matrix, c.x = x.address(), c.m = m, c.y_f32 = true, c.y = outputs.back().address();
      if (each == &s) c.add = c.y;
      calls.push_back(c);
    }
    matmul_row(gpu.kernels, gpu.stream, calls);
    for (size_t i = 0; i < 3; ++i) {
      const auto together = gpu.download<float>(outputs[i]), alone = run_row(gpu, *calls[i].w, x, m);
      for (size_t j = 0; j < alone.size(); ++j)
        ASSERT_EQ(together[j], i == 0 ? add[j] + alone[j] : alone[j])
            << name << " matrix " << i << " at " << j;
    }
  }
}

std::vector<const Form*> all_forms() {
  std::vector<const Form*> all;
  for (const auto& f : forms())
    if (f.layout != Layout::planes) all.push_back(&f);
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, MatMulFew, ::testing::ValuesIn(all_forms()),
                         [](const auto& p) { return std::string(p.param->name); });

TEST(MatMulFew, TilingsDoNotChangeABit) {
  CAIRN_NEED_GPU(gpu);
  for (const char* name : {"bf16", "q4_k", "q6_k"}) {
    const Form& f = form(name);
    const int64_t rows = 520, cols = 2048 + 256;
    const int parts = few_parts(f);
    const auto s = sample(gpu, f, rows, cols, 1, false);
    for (const int64_t m : {1, 5, 16, 40}) {
      const auto x = gpu.upload(testing::as_bf16(normal(size_t(m * cols), 2)));
      const auto chosen = few_tiling(f, rows, cols, m, false, gpu.device.facts());
      const auto wanted = run_few(gpu, s.matrix, x, m, &chosen);
      for (FewTiling t : {FewTiling{1, 1, parts, parts, 1, 1, 3}, FewTiling{2, 2, parts, parts, 1, 1, 3},
                          FewTiling{1, 1, parts, parts / 4, 4, 4, 3}, FewTiling{1, 4, parts, 1, 8, parts, 3},
                          FewTiling{1, 2, parts, 1, 8, 1, 3}, FewTiling{2, 1, parts, parts / 2, 2, 2, 3},
                          FewTiling{1, 1, parts, parts, 2, 1, 3}, FewTiling{1, 4, parts, 1, 16, 1, 3}}) {
        if (t.cluster > 1 && gpu.device.facts().capability < 90) continue;
        if (few_shared_bytes(f, t) > gpu.device.facts().shared_per_block) continue;
        const auto got = run_few(gpu, s.matrix, x, m, &t);
        ASSERT_EQ(std::memcmp(got.data(), wanted.data(), got.size() * 4), 0)
            << name << " m " << m << ' ' << few_variant(f, t, false).id();
      }
    }
  }
}

std::vector<float> run_warpgroups(Gpu& gpu, const DeviceMatrix& w, const Buffer& x, int64_t m,
                                  const WarpgroupTiling& tiling) {
  MatMulCall call;
  call.w = &w, call.x = x.address(), call.m = m, call.y_f32 = true;
  const auto y = gpu.poisoned(size_t(m * w.rows) * 4);
  call.y = y.address();
  matmul_few_sm90(gpu.kernels, gpu.stream, std::span(&call, 1), tiling);
  return gpu.download<float>(y);
}
std::vector<WarpgroupTiling> warpgroup_tilings(const Gpu& gpu, const Form& f) {
  std::vector<WarpgroupTiling> all;
  for (const int cluster : {1, 4, 8})
    for (const int tokens : {1, 2, 4, 8})
      for (const int warpgroups : {4, 3}) {
        if (warpgroups == 3 && tokens < 8) continue;
        WarpgroupTiling t{.token_tiles = tokens, .warpgroups = warpgroups, .cluster = cluster};
        all.push_back(with_stages(f, t, gpu.device.facts().shared_per_block));
      }
  return all;
}

TEST(MatMulFewWarpgroups, AgreeWithDoubleAndRowsAreIndependent) {
  CAIRN_NEED_GPU(gpu);
  if (gpu.device.facts().capability != 90) GTEST_SKIP() << "of Hopper";
  for (const char* name : {"q4_k", "q6_k", "q8_0", "int4_g128"}) {
    const Form& f = form(name);
    std::vector<Variant> needed = {
        few_variant(f, few_tiling(f, 515, 2816, 8, false, gpu.device.facts()), false)};
    for (const auto& t : warpgroup_tilings(gpu, f)) needed.push_back(warpgroup_variant(f, t, false));
    gpu.kernels.prepare(needed);
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{24, 768}, {100, 256}, {515, 256 * 11}}) {
      const auto s = sample(gpu, f, rows, cols, unsigned(rows));
      const int64_t most = 66;
      const auto bits = testing::as_bf16(normal(size_t(most * cols), 7));
      const auto x = gpu.upload(bits);
      const auto wanted = product(s.few, rows, cols, testing::as_float(bits), most);
      const auto few = run_few(gpu, s.matrix, x, 8);
      std::map<int, std::vector<float>> of_cluster;
      for (const auto& t : warpgroup_tilings(gpu, f)) {
        const auto what = warpgroup_variant(f, t, false).id();
        for (const int64_t m : {66, 1, 7, 8, 9, 33, 64}) {
          const auto got = run_warpgroups(gpu, s.matrix, x, m, t);
          auto& all = of_cluster[t.cluster];
          if (m == most) {
            expect_product(got, wanted, 0, fmt::format("[{}, {}] {}", rows, cols, what));
            if (::testing::Test::HasFatalFailure()) return;
            if (all.empty()) all = got;
          }
          ASSERT_EQ(std::memcmp(got.data(), all.data(), got.size() * 4), 0)
              << "[" << rows << ", " << cols << "] m " << m << ' ' << what;
        }
      }
      for (const auto& [cluster, all] : of_cluster) {
        if (cluster != few_parts(f)) continue;
        ASSERT_EQ(std::memcmp(few.data(), all.data(), few.size() * 4), 0)
            << name << " [" << rows << ", " << cols << "] is not what mma.sync gives";
      }
    }
  }
}

TEST(MatMulFewWarpgroups, EpiloguesDoWhatTheySay) {
  CAIRN_NEED_GPU(gpu);
  if (gpu.device.facts().capability != 90) GTEST_SKIP() << "of Hopper";
  const Form& f = form("q4_k");
  const int64_t rows = 300, cols = 1024;
  const auto s = sample(gpu, f, rows, cols, 1), u = sample(gpu, f, rows, cols, 2),
             v = sample(gpu, f, 44, cols, 3);
  for (const int cluster : {1, 4})
    for (const int64_t m : {1, 9, 64}) {
      const auto t = with_stages(f,
                                 {.token_tiles = m <= 8    ? 1
                                                 : m <= 16 ? 2
                                                           : 8,
                                  .cluster = cluster},
                                 gpu.device.facts().shared_per_block);
      SCOPED_TRACE(fmt::format("cluster {} m {}", cluster, m));
      const auto bits = testing::as_bf16(normal(size_t(m * cols), 3, 0.01f));
      const auto x = gpu.upload(bits);
      const auto gate = product(s.few, rows, cols, testing::as_float(bits), m),
                 up = product(u.few, rows, cols, testing::as_float(bits), m),
                 other = product(v.few, 44, cols, testing::as_float(bits), m);
      MatMulCall call;
      call.w = &s.matrix, call.up = &u.matrix, call.x = x.address(), call.m = m;
      call.activation = program::Activation::silu;
      const auto y = gpu.poisoned(size_t(m * rows) * 2);
      call.y = y.address();
      matmul_few_sm90(gpu.kernels, gpu.stream, std::span(&call, 1), t);
      const auto got = testing::as_float(gpu.download<uint16_t>(y));
      for (size_t i = 0; i < got.size(); ++i) {
        const double wanted = gate.y[i] / (1 + std::exp(-gate.y[i])) * up.y[i];
        ASSERT_NEAR(got[i], wanted, std::abs(wanted) / 250 + 1e-4) << "gated at " << i;
      }
      // Two matrices, one of an odd number of groups, the residual on the first.
      const auto add = normal(size_t(m * rows), 5);
      const auto first = gpu.upload(add);
      const auto second = gpu.poisoned(size_t(m * 44) * 4);
      std::vector<MatMulCall> calls(2);
      for (auto& c : calls) c.x = x.address(), c.m = m, c.y_f32 = true;
      calls[0].w = &s.matrix, calls[0].y = calls[0].add = first.address();
      calls[1].w = &v.matrix, calls[1].y = second.address();
      matmul_few_sm90(gpu.kernels, gpu.stream, calls, t);
      const auto got_first = gpu.download<float>(first), got_second = gpu.download<float>(second);
      for (size_t i = 0; i < got_first.size(); ++i)
        ASSERT_NEAR(got_first[i], add[i] + gate.y[i], 2e-5 * (1 + gate.magnitude[i])) << "first at " << i;
      for (size_t i = 0; i < got_second.size(); ++i)
        ASSERT_NEAR(got_second[i], other.y[i], 2e-5 * (1 + other.magnitude[i])) << "second at " << i;
    }
}

TEST(MatMulFew, EpiloguesDoWhatTheySay) {
  CAIRN_NEED_GPU(gpu);
  for (const char* name : {"bf16", "q4_k"}) {
    const Form& f = form(name);
    const int64_t rows = 100, cols = 512;
    const auto s = sample(gpu, f, rows, cols, 1), u = sample(gpu, f, rows, cols, 2);
    // small enough that activations are not saturated
    for (const int64_t m : {1, 9, 40}) {
      const auto bits = testing::as_bf16(normal(size_t(m * cols), 3, 0.01f));
      const auto x = gpu.upload(bits);
      const auto gate = product(s.few, rows, cols, testing::as_float(bits), m),
                 up = product(u.few, rows, cols, testing::as_float(bits), m);
      const auto bias = normal(size_t(rows), 4), add = normal(size_t(m * (rows + 8)), 5);
      const auto bias_buffer = gpu.upload(bias), add_buffer = gpu.upload(add);
      MatMulCall call;
      call.w = &s.matrix, call.x = x.address(), call.m = m;
      {
        auto y = gpu.upload(add);  // in place: the residual
        call.y = y.address(), call.add = y.address(), call.y_stride = rows + 8, call.y_f32 = true;
        call.bias = bias_buffer.address(), call.scale = 0.5f, call.softcap = 2;
        matmul_few(gpu.kernels, gpu.stream, call);
        const auto got = gpu.download<float>(y);
        for (int64_t t = 0; t < m; ++t)
          for (int64_t r = 0; r < rows + 8; ++r) {
            const auto at = size_t(t * (rows + 8) + r);
            double wanted = add[at];
            if (r < rows) wanted += 2 * std::tanh((0.5 * gate.y[size_t(t * rows + r)] + bias[size_t(r)]) / 2);
            const double sum_error = r < rows ? kSumError * gate.magnitude[size_t(t * rows + r)] : 0;
            ASSERT_NEAR(got[at], wanted, 2e-5 * (1 + std::abs(wanted)) + sum_error)
                << name << " row " << t << " col " << r;
          }
      }
      call = {};
      call.w = &s.matrix, call.up = &u.matrix, call.x = x.address(), call.m = m;
      call.activation = program::Activation::silu;
      const auto y = gpu.poisoned(size_t(m * rows) * 2);
      call.y = y.address();
      matmul_few(gpu.kernels, gpu.stream, call);
      const auto got = testing::as_float(gpu.download<uint16_t>(y));
      for (size_t i = 0; i < got.size(); ++i) {
        const double wanted = gate.y[i] / (1 + std::exp(-gate.y[i])) * up.y[i];
        ASSERT_NEAR(got[i], wanted, std::abs(wanted) / 250 + 1e-4) << name << " gated m " << m << " at " << i;
      }
    }
  }
}

TEST(MatMulFew, SeveralMatricesShareOneLaunch) {
  CAIRN_NEED_GPU(gpu);
  const Form& f = form("bf16");
  const int64_t cols = 1024, rows[3] = {300, 64, 72};
  for (const int64_t m : {1, 8, 33}) {
    const auto x = gpu.upload(testing::as_bf16(normal(size_t(m * cols), 3)));
    std::vector<Sample> samples;
    std::vector<Buffer> outputs;
    std::vector<MatMulCall> calls;
    for (unsigned i = 0; i < 3; ++i) {
      samples.push_back(sample(gpu, f, rows[i], cols, i));
      outputs.push_back(gpu.poisoned(size_t(m * rows[i]) * 4));
    }
    for (size_t i = 0; i < 3; ++i) {
      MatMulCall call;
      call.w = &samples[i].matrix, call.x = x.address(), call.m = m, call.y_f32 = true;
      call.y = outputs[i].address();
      calls.push_back(call);
    }
    matmul_few(gpu.kernels, gpu.stream, calls);
    for (size_t i = 0; i < 3; ++i) {
      const auto got = gpu.download<float>(outputs[i]), alone = run_few(gpu, samples[i].matrix, x, m);
      ASSERT_EQ(std::memcmp(got.data(), alone.data(), got.size() * 4), 0) << "matrix " << i << " m " << m;
    }
  }
}

TEST(MatMulFew, ExpertsMultiplyTheRowsThatChoseThem) {
  CAIRN_NEED_GPU(gpu);
  for (const char* name : {"bf16", "q4_k", "q6_k"}) {
    const Form& f = form(name);
    const int64_t experts = 40, rows = 72, cols = 768;
    std::vector<Sample> pieces;
    DeviceMatrix w;
    w.form = &f;
    w.rows = rows, w.cols = cols, w.pieces = experts, w.piece_bytes = packed_bytes(f, rows, cols);
    w.own = Buffer(gpu.device, w.piece_bytes * size_t(experts));
    w.data = w.own.address();
    for (int64_t e = 0; e < experts; ++e) {
      pieces.push_back(sample(gpu, f, rows, cols, unsigned(e)));
      gpu.stream.copy(w.piece(e), pieces.back().matrix.data, w.piece_bytes);
    }
    for (const bool per_choice : {false, true})
      for (const int64_t tokens : {1, 3, 40}) {
        const int64_t top_k = 6, pairs = tokens * top_k, x_rows = per_choice ? pairs : tokens;
        std::mt19937 random{unsigned(tokens)};
        std::vector<int32_t> chosen;
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t s = 0; s < top_k; ++s)  // expert 7 gets a row of every token: more than a tile
            chosen.push_back(s == 0 ? 7 : int32_t(random() % uint32_t(experts)));
        const auto bits = testing::as_bf16(normal(size_t(x_rows * cols), 3));
        const auto values = testing::as_float(bits);
        const auto x = gpu.upload(bits);
        const auto choice = gpu.upload(chosen);
        const auto y = gpu.poisoned(size_t(pairs * rows) * 4);
        MatMulCall call;
        call.w = &w, call.x = x.address(), call.m = pairs, call.y = y.address(), call.y_f32 = true;
        expert_matmul_few(gpu.kernels, gpu.stream, std::span(&call, 1),
                          {choice.address(), top_k, per_choice});
        const auto got = gpu.download<float>(y);
        for (int64_t i = 0; i < pairs; ++i) {
          const int64_t row = per_choice ? i : i / top_k;
          const std::vector<float> one(values.begin() + row * cols, values.begin() + (row + 1) * cols);
          const std::vector<float> part(got.begin() + i * rows, got.begin() + (i + 1) * rows);
          expect_product(part, product(pieces[size_t(chosen[size_t(i)])].few, rows, cols, one, 1), 0,
                         fmt::format("{} tokens {} pair {}", name, tokens, i));
          // the same bits as the expert's matrix alone gives
          const std::vector<uint16_t> one_bits(bits.begin() + row * cols, bits.begin() + (row + 1) * cols);
          if (i < 8) {
            const auto tiling = few_expert_tiling(f, gpu.device.facts());
            const auto alone =
                run_few(gpu, pieces[size_t(chosen[size_t(i)])].matrix, gpu.upload(one_bits), 1, &tiling);
            ASSERT_EQ(std::memcmp(alone.data(), part.data(), part.size() * 4), 0) << name << " pair " << i;
          }
        }
      }
  }
}

}  // namespace
}  // namespace cairn::cuda
