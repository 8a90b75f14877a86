#include "codecs/bcq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/float16.h"
#include "codecs/codec.h"

namespace cairn::codecs {
namespace {

std::vector<float> gaussian(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

float sum_of(const float* alpha, float bias, int q, int signs) {
  float sum = 0;
  for (int i = 0; i < q; ++i) sum += signs >> i & 1 ? alpha[i] : -alpha[i];
  return sum + bias;
}

double squared_error(const std::vector<float>& x, const float* alpha, int q,
                     const std::vector<uint8_t>& codes) {
  double sum = 0;
  for (size_t e = 0; e < x.size(); ++e)
    sum += std::pow(double{x[e]} - double{sum_of(alpha, 0, q, codes[e])}, 2);
  return sum;
}

// Rounding to the nearest of 2^bits even steps between the group's extremes (zero among them), as RTN does.
double rtn_error(const float* x, int count, int bits) {
  float low = 0, high = 0;
  for (int e = 0; e < count; ++e) low = std::min(low, x[e]), high = std::max(high, x[e]);
  const float scale = (high - low) / float((1 << bits) - 1), zero = std::round(-low / scale);
  double sum = 0;
  for (int e = 0; e < count; ++e) {
    const float q = std::clamp(std::round(x[e] / scale) + zero, 0.0f, float((1 << bits) - 1));
    sum += std::pow(double{x[e]} - double{scale * (q - zero)}, 2);
  }
  return sum;
}

TEST(Bcq, UniformCodesAreSignsAndScalesExactly) {
  std::mt19937 random(1);
  for (const int bits : {1, 2, 3, 4, 8})
    for (int trial = 0; trial < 200; ++trial) {
      const float scale = f16_to_float(
          float_to_f16(std::exp2(float(random() % 16) - 12) * (1 + float(random() % 1024) / 1024)));
      const int zero = int(random() % (1u << bits)) + int(random() % 2);
      const BcqScales bcq = bcq_of_uniform(bits, scale, zero);
      for (int code = 0; code < 1 << bits; ++code) {
        const float want = scale * float(code - zero), got = sum_of(bcq.alpha, bcq.bias, bits, code);
        const float ulp =
            std::nextafter(std::abs(want), std::numeric_limits<float>::infinity()) - std::abs(want);
        ASSERT_LE(std::abs(got - want), bits <= 4 ? 0 : ulp) << bits << " bits, code " << code;
      }
    }
}

TEST(Bcq, FittedScalesBeatGreedyOnesAndRounding) {
  const auto x = gaussian(128 * 256, 2);
  for (const int q : {1, 2, 3, 4}) {
    double fitted = 0, greedy = 0, rounded = 0;
    for (size_t at = 0; at < x.size(); at += 128) {
      const BcqFit fit = bcq_fit(&x[at], 128, nullptr, q), start = bcq_fit(&x[at], 128, nullptr, q, 0);
      ASSERT_EQ(start.errors.size(), 1u);
      fitted += fit.errors.back(), greedy += start.errors.back();
      rounded += rtn_error(&x[at], 128, q);
      for (size_t r = 1; r < fit.errors.size(); ++r) ASSERT_LE(fit.errors[r], fit.errors[r - 1] + 1e-6);
      for (int i = 1; i < q; ++i) ASSERT_LE(fit.alpha[i], fit.alpha[i - 1]);
      // The errors are those of the signs that are written.
      const std::vector<float> group(x.begin() + long(at), x.begin() + long(at) + 128);
      std::vector<uint8_t> codes(128);
      bcq_assign(group.data(), 128, fit.alpha, 0, q, codes.data());
      ASSERT_NEAR(squared_error(group, fit.alpha, q, codes), fit.errors.back(), 1e-4);
      bcq_assign_greedy(group.data(), 128, start.alpha, q, codes.data());
      ASSERT_NEAR(squared_error(group, start.alpha, q, codes), start.errors[0], 1e-4);
    }
    EXPECT_LT(fitted, rounded) << q;
    if (q > 1) {
      EXPECT_LT(fitted, 0.9 * greedy) << q;
    }
    // Lloyd and Max: no q-bit quantizer of a Gaussian does better than this (groups of 128 adapt by a few
    // percent).
    constexpr double kLeast[] = {0.3634, 0.1175, 0.03454, 0.009497};
    EXPECT_GT(fitted / double(x.size()), 0.85 * kLeast[q - 1]) << q;
    EXPECT_LT(fitted / double(x.size()), 1.25 * kLeast[q - 1]) << q;
  }
}

TEST(Bcq, EveryWeightGetsTheNearestSum) {
  const auto x = gaussian(500, 3);
  const float alpha[4] = {0.9f, 0.9f, 0.31f, 0.05f}, bias = 0.125f;
  for (const int q : {1, 2, 3, 4}) {
    std::vector<uint8_t> codes(x.size());
    bcq_assign(x.data(), int(x.size()), alpha, bias, q, codes.data());
    for (size_t e = 0; e < x.size(); ++e) {
      ASSERT_LT(codes[e], 1 << q);
      const float chosen = std::abs(x[e] - sum_of(alpha, bias, q, codes[e]));
      for (int s = 0; s < 1 << q; ++s) ASSERT_LE(chosen, std::abs(x[e] - sum_of(alpha, bias, q, s)) + 1e-6f);
    }
  }
}

TEST(Bcq, BlocksHoldTheFit) {
  const auto x = gaussian(128 * 40, 4);
  double last = std::numeric_limits<double>::infinity();
  for (const CodecId id : {CodecId::bcq1_g128, CodecId::bcq2_g128, CodecId::bcq3_g128, CodecId::bcq4_g128}) {
    const Codec& c = codec(id);
    std::vector<std::byte> blocks(size_t(*row_bytes(c, x.size())));
    c.encode(x.data(), blocks.data(), int64_t(x.size()), nullptr);
    std::vector<float> y(x.size());
    c.decode(blocks.data(), y.data(), int64_t(x.size()));
    double error = 0, fitted = 0;
    for (size_t e = 0; e < x.size(); ++e) error += std::pow(double{x[e]} - double{y[e]}, 2);
    const int q = int(id) - int(CodecId::bcq1_g128) + 1;
    for (size_t at = 0; at < x.size(); at += 128) fitted += bcq_fit(&x[at], 128, nullptr, q).errors.back();
    EXPECT_NEAR(error, fitted, 1e-3 * fitted) << c.name;  // f16 scales
    EXPECT_LT(error, 0.5 * last) << c.name;
    last = error;
  }
}

TEST(Bcq, ImportanceDecidesWhereTheErrorGoes) {
  const auto x = gaussian(128, 5);
  std::vector<float> importance(128);
  for (size_t i = 0; i < 128; ++i) importance[i] = i < 16 ? 100.0f : 1.0f;
  const auto error_of_important = [&](const BcqFit& fit) {
    std::vector<uint8_t> codes(128);
    bcq_assign(x.data(), 128, fit.alpha, 0, 2, codes.data());
    double sum = 0;
    for (size_t e = 0; e < 16; ++e)
      sum += std::pow(double{x[e]} - double{sum_of(fit.alpha, 0, 2, codes[e])}, 2);
    return sum;
  };
  EXPECT_LT(error_of_important(bcq_fit(x.data(), 128, importance.data(), 2)),
            error_of_important(bcq_fit(x.data(), 128, nullptr, 2)));
  const std::vector<float> none(128, 0.0f);
  EXPECT_EQ(bcq_fit(x.data(), 128, none.data(), 3).errors, bcq_fit(x.data(), 128, nullptr, 3).errors);
}

TEST(Bcq, PlanesThatAreEqualOrEmptyAreNoTrouble) {
  for (const auto& x : {std::vector<float>(128, 0.0f), std::vector<float>(128, -3.0f), [] {
                          std::vector<float> v(128, 0.0f);
                          v[5] = 7;
                          return v;
                        }()})
    for (const int q : {1, 4, 8}) {
      const BcqFit fit = bcq_fit(x.data(), 128, nullptr, q);
      for (size_t r = 1; r < fit.errors.size(); ++r) EXPECT_LE(fit.errors[r], fit.errors[r - 1] + 1e-6);
      for (int i = 0; i < q; ++i) EXPECT_TRUE(std::isfinite(fit.alpha[i]) && fit.alpha[i] >= 0);
    }
}

}  // namespace
}  // namespace cairn::codecs
