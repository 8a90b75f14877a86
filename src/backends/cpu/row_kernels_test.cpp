#include "backends/cpu/row_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace cairn::cpu {
namespace {

using program::Activation;

std::vector<float> gaussian(int64_t n, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

double activation_reference(Activation activation, double x) {
  switch (activation) {
    case Activation::identity: return x;
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu: return x / (1 + std::exp(-1.702 * x));
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
  }
  return 0;
}

class RowKernelsTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > detect_isa()) GTEST_SKIP() << "this machine lacks " << to_string(GetParam());
  }
  const RowKernels& kernels() const { return row_kernels(GetParam()); }
};

constexpr int64_t kSizes[] = {1, 7, 15, 16, 17, 64, 255, 4096, 4099};

// 16 sums of n/16 rounded terms each, then 4 additions, a root, a division and two products: relative error
// of the norm below (n/32 + 12) ulp because the sum's error is halved by the root.
TEST_P(RowKernelsTest, RmsNormMatchesReference) {
  for (const int64_t n : kSizes)
    for (const float magnitude : {1e-12f, 1.f, 1e12f}) {
      const auto x = gaussian(n, 1, magnitude), weight = gaussian(n, 2);
      std::vector<float> y(x.size(), NAN);
      kernels().rms_norm(x.data(), weight.data(), 1e-6f, 1, n, y.data());
      double squares = 0;
      for (const float v : x) squares += double(v) * v;
      const double scale = 1 / std::sqrt(squares / double(n) + 1e-6f);
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = x[i] * scale * (1 + double(weight[i]));
        // (1 + w) is rounded once at the size of 1 + |w|
        const double bound = (double(n) / 32 + 12) * 0x1p-24 * std::abs(want) +
                             2 * 0x1p-24 * std::abs(x[i] * scale) * (1 + std::abs(weight[i]));
        ASSERT_NEAR(y[i], want, bound) << "n " << n << " i " << i;
      }
    }
}

TEST_P(RowKernelsTest, LayerNormMatchesReference) {
  for (const int64_t n : kSizes) {
    const auto x = gaussian(n, 3), weight = gaussian(n, 4), bias = gaussian(n, 5);
    std::vector<float> y(x.size(), NAN);
    kernels().layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, n, y.data());
    double mean = 0, squares = 0;
    for (const float v : x) mean += v / double(n);
    for (const float v : x) squares += (v - mean) * (v - mean);
    const double scale = 1 / std::sqrt(squares / double(n) + 1e-5f);
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = (x[i] - mean) * scale * weight[i] + bias[i];
      // the mean's error of n/16 ulp of the largest |x| (about 4) passes through scale and weight
      const double bound =
          (double(n) / 16 + 16) * 0x1p-24 * (4 * scale * std::abs(weight[i]) + std::abs(want) + 1);
      ASSERT_NEAR(y[i], want, bound) << "n " << n << " i " << i;
    }
  }
}

// exp_fast is good to 2 ulp, every formula adds at most 8 roundings; near x = 0 the results go to 0 with x,
// where the bound is relative to |x|.
TEST_P(RowKernelsTest, ActivationsMatchReference) {
  for (const auto activation : {Activation::identity, Activation::relu, Activation::silu, Activation::gelu,
                                Activation::gelu_tanh, Activation::quick_gelu, Activation::sigmoid}) {
    std::vector<float> x;
    for (float v = -20; v < 20; v += 0.0137f) x.push_back(v);
    for (float v : {0.f, -0.f, 1e-6f, -1e-6f, 60.f, -60.f, 200.f, -200.f}) x.push_back(v);
    std::vector<float> y(x.size(), NAN), gated(x.size(), NAN);
    const auto up = gaussian(int64_t(x.size()), 6);
    kernels().activate(activation, x.data(), int64_t(x.size()), y.data());
    kernels().gated(activation, x.data(), up.data(), int64_t(x.size()), gated.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = activation_reference(activation, x[i]);
      // 1 + tanh or 1 + erf is rounded at size 1, so far left the error is 8 ulp of |x|
      const double bound =
          12 * 0x1p-24 * std::abs(x[i]) + (activation == Activation::sigmoid ? 12 * 0x1p-24 : 0) + 1e-37;
      ASSERT_NEAR(y[i], want, bound) << program::to_string(activation) << " of " << x[i];
      ASSERT_NEAR(gated[i], want * up[i], bound * std::abs(up[i]) + 0x1p-23 * std::abs(want * up[i]));
    }
  }
}

TEST_P(RowKernelsTest, SoftCapMatchesTanh) {
  std::vector<float> x;
  for (float v = -200; v < 200; v += 0.173f) x.push_back(v);
  std::vector<float> y(x.size());
  kernels().soft_cap(x.data(), 0.5f, 30, int64_t(x.size()), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = 30 * std::tanh(double(x[i]) * 0.5 / 30);
    ASSERT_NEAR(y[i], want, 16 * 0x1p-24 * std::abs(want) + 1e-7) << x[i];
  }
}

TEST_P(RowKernelsTest, RopeTurnsPairsAndPassesTheRestThrough) {
  constexpr int64_t kHeads = 3, kDim = 20, kRotary = 12;
  const auto x = gaussian(kHeads * kDim, 7);
  std::vector<float> cosine, sine;
  for (int i = 0; i < kRotary / 2; ++i) {
    cosine.push_back(std::cos(float(i)));
    sine.push_back(std::sin(float(i)));
  }
  for (const auto pairing : {program::RopePairing::half, program::RopePairing::adjacent}) {
    std::vector<float> y(x.size(), NAN), in_place = x;
    kernels().rope(x.data(), cosine.data(), sine.data(), kHeads, kDim, kRotary, pairing, y.data());
    kernels().rope(in_place.data(), cosine.data(), sine.data(), kHeads, kDim, kRotary, pairing,
                   in_place.data());
    EXPECT_EQ(y, in_place);
    for (int h = 0; h < kHeads; ++h)
      for (int i = 0; i < kRotary / 2; ++i) {
        const bool half = pairing == program::RopePairing::half;
        const size_t a = size_t(h * kDim + (half ? i : 2 * i)),
                     b = size_t(h * kDim + (half ? i + kRotary / 2 : 2 * i + 1));
        const auto c = double(cosine[size_t(i)]), s = double(sine[size_t(i)]);
        EXPECT_NEAR(y[a], x[a] * c - x[b] * s, 1e-6);
        EXPECT_NEAR(y[b], x[b] * c + x[a] * s, 1e-6);
      }
    for (size_t i = kRotary; i < kDim; ++i) EXPECT_EQ(y[i], x[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, RowKernelsTest, ::testing::Values(Isa::scalar, Isa::avx2, Isa::avx512),
                         [](const auto& level) { return std::string(to_string(level.param)); });

}  // namespace
}  // namespace cairn::cpu
