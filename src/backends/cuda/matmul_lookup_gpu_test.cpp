// Products with planes of signs, and their unpacking, against double on the CPU.
#include "backends/cuda/matmul_lookup.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "backends/cuda/testing.h"
#include "base/checked.h"
#include "base/float16.h"

namespace cairn::cuda {
namespace {

using testing::Gpu;
using testing::normal;

// A matrix of random signs, with the values that it stands for.
struct Sample {
  DeviceMatrix matrix;
  std::vector<float> values;
};
Sample sample(Gpu& gpu, int planes, int64_t rows, int64_t cols, unsigned seed) {
  std::mt19937 random(seed);
  Sample s;
  const Form& f = form(fmt::format("bcq{}_g128", planes));
  const codecs::Codec& codec = *codecs::find_codec(f.name);
  s.matrix.form = &f, s.matrix.codec = &codec;
  s.matrix.rows = rows, s.matrix.cols = cols;
  s.matrix.piece_bytes = packed_bytes(f, rows, cols);
  std::vector<std::byte> file(size_t(rows * cols / 128 * codec.block_bytes));
  for (auto& b : file) b = std::byte(random());
  for (size_t at = 0; at < file.size(); at += size_t(codec.block_bytes)) {
    for (int i = 0; i < planes; ++i) {
      const uint16_t alpha = float_to_f16(0.01f * float(1 + random() % 100));
      std::memcpy(file.data() + at + size_t(2 * i), &alpha, 2);
    }
    const float bias = 0.01f * float(int(random() % 100) - 50);
    std::memcpy(file.data() + at + size_t(2 * planes), &bias, 4);
  }
  s.values.resize(size_t(rows * cols));
  codec.decode(file.data(), s.values.data(), rows * cols);
  std::vector<std::byte> packed(s.matrix.piece_bytes);
  pack_row_groups(f, codec.id, file.data(), rows, cols, 0, ceil_div(rows, 8), packed.data());
  s.matrix.own = gpu.upload(packed);
  s.matrix.data = s.matrix.own.address();
  return s;
}

template <typename F>
std::vector<float> run(Gpu& gpu, const DeviceMatrix& w, const Buffer& x, int64_t m, F&& multiply) {
  MatMulCall call;
  call.w = &w, call.x = x.address(), call.m = m, call.y_f32 = true;
  const auto y = gpu.poisoned(size_t(m * w.rows) * 4);
  call.y = y.address();
  multiply(call);
  return gpu.download<float>(y);
}

double sum_of(const Sample& s, const std::vector<float>& x, int64_t token, int64_t row, double* magnitude) {
  double sum = 0;
  *magnitude = 0;
  for (int64_t c = 0; c < s.matrix.cols; ++c) {
    const double v = double(x[size_t(token * s.matrix.cols + c)]) * s.values[size_t(row * s.matrix.cols + c)];
    sum += v, *magnitude += std::abs(v);
  }
  return sum;
}

class MatMulPlanes : public ::testing::TestWithParam<bool> {};  // alone: by look-up

TEST_P(MatMulPlanes, AgreesWithDoubleForAnyRowsAndKeepsARowsBits) {
  CAIRN_NEED_GPU(gpu);
  const bool alone = GetParam();
  std::vector<Variant> needed;
  for (const int planes : {1, 2, 3, 4})
    for (const bool gated : {false, true})
      for (auto& v : matmul_planes_variants(form(fmt::format("bcq{}_g128", planes)), gated, alone))
        needed.push_back(std::move(v));
  gpu.kernels.prepare(needed);
  for (const int planes : {1, 2, 3, 4})
    for (const auto& [rows, cols] :
         {std::pair<int64_t, int64_t>{8, 128}, {27, 384}, {100, 2048}, {515, 128 * 37}}) {
      const auto s = sample(gpu, planes, rows, cols, unsigned(rows));
      const int64_t most = rows == 515 ? 9 : 37;
      const auto bits = testing::as_bf16(normal(size_t(most * cols), 5));
      const auto x = testing::as_float(bits);
      const auto x_buffer = gpu.upload(bits);
      const auto multiply = [&](MatMulCall& call) {
        call.alone = alone;
        matmul_planes(gpu.kernels, gpu.stream, std::span(&call, 1));
      };
      const auto whole = run(gpu, s.matrix, x_buffer, most, multiply);
      for (int64_t t = 0; t < most; ++t)
        for (int64_t r = 0; r < rows; ++r) {
          double magnitude = 0;
          const double wanted = sum_of(s, x, t, r, &magnitude);
          ASSERT_NEAR(whole[size_t(t * rows + r)], wanted, 1e-5 * magnitude + 1e-30)
              << planes << " planes, " << rows << " x " << cols << ", token " << t << " row " << r;
        }
      for (const int64_t m : {1, 2, 3, 4, 8, 9, 17, 33}) {
        if (m > most) continue;
        const auto got = run(gpu, s.matrix, x_buffer, m, multiply);
        ASSERT_EQ(std::memcmp(got.data(), whole.data(), got.size() * 4), 0)
            << planes << " planes, " << rows << " x " << cols << ", m " << m;
      }
      const auto got = run(gpu, s.matrix, x_buffer, 1, [&](MatMulCall& call) {
        LookupTiling lookup = lookup_tiling(false, 1);
        SignsTiling signs = signs_tiling(*s.matrix.form, false, 1);
        lookup.sets = signs.sets = 2, lookup.min_blocks = signs.min_blocks = 1;
        if (alone)
          matmul_lookup(gpu.kernels, gpu.stream, std::span(&call, 1), lookup);
        else
          matmul_signs(gpu.kernels, gpu.stream, std::span(&call, 1), signs);
      });
      ASSERT_EQ(std::memcmp(got.data(), whole.data(), got.size() * 4), 0) << "two sets";
    }
}

TEST_P(MatMulPlanes, GatedProductsAndSeveralMatricesDoWhatTheySay) {
  CAIRN_NEED_GPU(gpu);
  const int64_t cols = 1024, m = 3;
  const auto a = sample(gpu, 3, 72, cols, 1), b = sample(gpu, 3, 72, cols, 2),
             c = sample(gpu, 3, 40, cols, 3);
  const auto bits = testing::as_bf16(normal(size_t(m * cols), 6, 0.05f));
  const auto x = testing::as_float(bits);
  const auto x_buffer = gpu.upload(bits);
  MatMulCall gated;
  gated.w = &a.matrix, gated.up = &b.matrix, gated.x = x_buffer.address(), gated.m = m, gated.y_f32 = true;
  gated.activation = program::Activation::silu, gated.alone = GetParam();
  auto y = gpu.poisoned(size_t(m * 72) * 4);
  gated.y = y.address();
  matmul_planes(gpu.kernels, gpu.stream, std::span(&gated, 1));
  auto got = gpu.download<float>(y);
  for (int64_t t = 0; t < m; ++t)
    for (int64_t r = 0; r < 72; ++r) {
      double magnitude = 0, other = 0;
      const double g = sum_of(a, x, t, r, &magnitude), u = sum_of(b, x, t, r, &other);
      ASSERT_NEAR(got[size_t(t * 72 + r)], g / (1 + std::exp(-g)) * u, 1e-4 * (1 + magnitude) * (1 + other));
    }

  const std::vector<float> bias = normal(72, 7), add = normal(size_t(m * 112), 8);
  const auto bias_buffer = gpu.upload(bias), add_buffer = gpu.upload(add);
  y = gpu.poisoned(size_t(m * 112) * 4);
  MatMulCall calls[2];
  calls[0].w = &a.matrix, calls[1].w = &c.matrix;
  for (auto& call : calls)
    call.x = x_buffer.address(), call.m = m, call.y_f32 = true, call.y_stride = 112, call.scale = 0.5f,
    call.softcap = 2, call.alone = GetParam();
  calls[0].bias = bias_buffer.address(), calls[0].y = y.address(), calls[1].y = y.address() + 72 * 4;
  matmul_planes(gpu.kernels, gpu.stream, std::span(calls));
  got = gpu.download<float>(y);
  for (int64_t t = 0; t < m; ++t)
    for (int64_t r = 0; r < 112; ++r) {
      double magnitude = 0;
      double v = 0.5 * (r < 72 ? sum_of(a, x, t, r, &magnitude) : sum_of(c, x, t, r - 72, &magnitude));
      if (r < 72) v += double(bias[size_t(r)]);
      ASSERT_NEAR(got[size_t(t * 112 + r)], 2 * std::tanh(v / 2), 1e-5 * (1 + magnitude)) << t << ' ' << r;
    }

  calls[0].add = add_buffer.address(), calls[0].softcap = 0, calls[0].scale = 1, calls[0].bias = 0;
  matmul_planes(gpu.kernels, gpu.stream, std::span(calls, 1));
  got = gpu.download<float>(y);
  for (int64_t t = 0; t < m; ++t)
    for (int64_t r = 0; r < 72; ++r) {
      double magnitude = 0;
      const double v = sum_of(a, x, t, r, &magnitude) + double(add[size_t(t * 112 + r)]);
      ASSERT_NEAR(got[size_t(t * 112 + r)], v, 1e-5 * (1 + magnitude)) << t << ' ' << r;
    }
}

INSTANTIATE_TEST_SUITE_P(All, MatMulPlanes, ::testing::Bool(),
                         [](const auto& p) { return std::string(p.param ? "lookup" : "signs"); });

TEST(PlanesOfSigns, UnpackedRowsAreTheValuesInBf16) {
  CAIRN_NEED_GPU(gpu);
  for (const int planes : {1, 2, 3, 4}) {
    const int64_t rows = 45, cols = 640;
    const auto s = sample(gpu, planes, rows, cols, unsigned(planes));
    const auto y = gpu.poisoned(size_t(rows * cols) * 2);
    unpack_rows(gpu.kernels, gpu.stream, s.matrix, 0, 8, rows - 8, y.address());
    const auto got = gpu.download<uint16_t>(y);
    for (int64_t i = 0; i < (rows - 8) * cols; ++i)
      ASSERT_EQ(got[size_t(i)], float_to_bf16(s.values[size_t(8 * cols + i)])) << planes << " at " << i;
    for (int64_t i = (rows - 8) * cols; i < rows * cols; ++i) ASSERT_EQ(got[size_t(i)], 0xffff);
  }
}

}  // namespace
}  // namespace cairn::cuda
