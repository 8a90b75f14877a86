#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/float16.h"
#include "codecs/codec.h"
#include "codecs/fp4.h"
#include "codecs/legacy_blocks.h"

namespace cairn::codecs {
namespace {

// Box-Muller over a generator whose output the standard fixes: the same numbers on every machine.
std::vector<float> gaussian(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&] { return (double(random() >> 11) + 0.5) * 0x1p-53; };
  std::vector<float> x(count);
  for (size_t i = 0; i + 1 < count; i += 2) {
    const double radius = std::sqrt(-2 * std::log(uniform())), angle = 2 * std::numbers::pi * uniform();
    x[i] = float(radius * std::cos(angle)), x[i + 1] = float(radius * std::sin(angle));
  }
  return x;
}

std::vector<std::byte> encode(const Codec& c, const std::vector<float>& x,
                              const float* importance = nullptr) {
  std::vector<std::byte> blocks(size_t(*row_bytes(c, x.size())), std::byte{0xee});
  c.encode(x.data(), blocks.data(), int64_t(x.size()), importance);
  return blocks;
}

std::vector<float> decode(const Codec& c, const std::vector<std::byte>& blocks, size_t count) {
  std::vector<float> y(count, std::numeric_limits<float>::quiet_NaN());
  c.decode(blocks.data(), y.data(), int64_t(count));
  return y;
}

double rmse(const std::vector<float>& a, const std::vector<float>& b,
            const std::vector<float>* weights = nullptr) {
  double sum = 0, weight = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double w = weights ? (*weights)[i] : 1;
    sum += w * (a[i] - b[i]) * (a[i] - b[i]), weight += w;
  }
  return std::sqrt(sum / weight);
}

bool has_shared_scale(const Codec& c) { return c.block_elements > 1 && c.encode; }

// RMSE of ggml's own encoders on gaussian(2^18, 1), measured once with its library (0.3.36 of
// llama-cpp-python).
struct Reference {
  CodecId id;
  double rmse;
};
constexpr Reference kReferences[] = {
    {CodecId::q4_0, 0.086190},  {CodecId::q4_1, 0.078413},   {CodecId::q5_0, 0.042756},
    {CodecId::q5_1, 0.037928},  {CodecId::q8_0, 0.005370},   {CodecId::q2_k, 0.297125},
    {CodecId::q3_k, 0.151209},  {CodecId::q4_k, 0.071518},   {CodecId::q5_k, 0.036203},
    {CodecId::q6_k, 0.017756},  {CodecId::iq4_nl, 0.076221}, {CodecId::iq4_xs, 0.076779},
    {CodecId::mxfp4, 0.114791}, {CodecId::nvfp4, 0.095009},  {CodecId::tq1_0, 0.809285},
    {CodecId::tq2_0, 0.809285},
};

TEST(CodecEncode, GaussianErrorIsWithinTwoPercentOfTheReference) {
  const auto x = gaussian(size_t{1} << 18, 1);
  for (const auto& [id, want] : kReferences) {
    const Codec& c = codec(id);
    const double got = rmse(decode(c, encode(c, x), x.size()), x);
    EXPECT_LE(got, 1.02 * want) << c.name;
    EXPECT_GE(got, 0.5 * want) << c.name << ": too good to be true";
  }
}

TEST(CodecEncode, PlainFormatsRoundToNearest) {
  const auto x = gaussian(1024, 2);
  for (const auto& [id, bound] : {std::pair{CodecId::f32, 0.0},
                                  {CodecId::f64, 0.0},
                                  {CodecId::f16, 0x1p-11},
                                  {CodecId::bf16, 0x1p-8}}) {
    const Codec& c = codec(id);
    const auto y = decode(c, encode(c, x), x.size());
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_LE(std::abs(y[i] - x[i]), bound * std::abs(x[i]) + 0x1p-25 * (bound > 0));
  }
}

TEST(CodecEncode, Q8_0OfItsOwnValuesIsItself) {
  const Codec& c = codec(CodecId::q8_0);
  auto x = gaussian(4096, 3);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0f, float(i / 512) - 2);
  const auto blocks = encode(c, x);
  EXPECT_EQ(encode(c, decode(c, blocks, x.size())), blocks);
}

// The codes and scales straight from the formulas, without the encoder's loops.
TEST(CodecEncode, BytesFollowTheFormulas) {
  const auto x = gaussian(32 * 4096, 4);
  const auto q4_0 = encode(codec(CodecId::q4_0), x), q8_0 = encode(codec(CodecId::q8_0), x),
             mxfp4 = encode(codec(CodecId::mxfp4), x);
  for (size_t block = 0; block < x.size() / 32; ++block) {
    const float* row = &x[32 * block];
    const float extreme =
        *std::max_element(row, row + 32, [](float a, float b) { return std::abs(a) < std::abs(b); });
    BlockQ4_0 b4;
    std::memcpy(&b4, &q4_0[18 * block], sizeof b4);
    const float d4 = extreme / -8;
    ASSERT_EQ(b4.d, float_to_f16(d4));
    BlockQ8_0 b8;
    std::memcpy(&b8, &q8_0[34 * block], sizeof b8);
    const float d8 = std::abs(extreme) / 127;
    ASSERT_EQ(b8.d, float_to_f16(d8));
    BlockMXFP4 bm;
    std::memcpy(&bm, &mxfp4[17 * block], sizeof bm);
    ASSERT_EQ(bm.e, std::floor(std::log2(double(std::abs(extreme)))) + 125);
    for (int e = 0; e < 32; ++e) {
      const int shift = e < 16 ? 0 : 4;
      // Products by the rounded inverse: the f32 formula, one rounding away from the quotient.
      ASSERT_EQ((b4.qs[e % 16] >> shift) & 15, std::min(15, int(row[e] * (1 / d4) + 8.5f)));
      ASSERT_EQ(b8.qs[e], int(std::round(row[e] * (1 / d8))));
      const float scale = std::ldexp(1.0f, bm.e - 128);
      const float chosen = std::abs(scale * float(kFp4Levels[(bm.qs[e % 16] >> shift) & 15]) - row[e]);
      for (const int8_t level : kFp4Levels) ASSERT_LE(chosen, std::abs(scale * float(level) - row[e]));
    }
  }
}

TEST(CodecEncode, ZerosConstantsAndTinyValuesStayFiniteAndNear) {
  for (const Codec& c : all_codecs()) {
    if (!has_shared_scale(c)) continue;
    const size_t count = 2 * size_t(c.block_elements);
    for (const float value : {0.0f, -0.0f, 1.0f, -1.0f, 1e-30f, -1e-40f, 1000.0f}) {
      const std::vector<float> x(count, value);
      for (const float y : decode(c, encode(c, x), count)) {
        ASSERT_TRUE(std::isfinite(y)) << c.name << " of " << value;
        // One level is reached exactly up to the rounding of the scales: 4 bits in q2_k and e4m3, f16
        // elsewhere.
        ASSERT_NEAR(y, value, (c.id == CodecId::mxfp4 ? 0.25f : 0.07f) * std::abs(value) + 0x1p-25f)
            << c.name;
      }
    }
  }
}

TEST(CodecEncode, TernaryWeightsAreKeptExactly) {
  std::mt19937 random(5);
  std::vector<float> x(1024);
  for (float& v : x) v = 0.5f * float(int(random() % 3) - 1);
  for (const CodecId id : {CodecId::tq1_0, CodecId::tq2_0}) {
    const Codec& c = codec(id);
    EXPECT_EQ(decode(c, encode(c, x), x.size()), x) << c.name;
  }
}

TEST(CodecEncode, WhatABlockCannotHoldIsAnErrorNamingTheElement) {
  for (const Codec& c : all_codecs()) {
    if (!has_shared_scale(c)) continue;
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(), 1e30f}) {
      std::vector<float> x(3 * size_t(c.block_elements), 0.25f);
      const size_t at = 2 * size_t(c.block_elements) + 5;
      x[at] = bad;
      try {
        encode(c, x);
        FAIL() << c.name << " took " << bad;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
        EXPECT_NE(std::string(error.what()).find("element " + std::to_string(at)), std::string::npos)
            << error.what();
        EXPECT_NE(std::string(error.what()).find(c.name), std::string::npos) << error.what();
      }
    }
    // Past the f16 scale (and e4m3's) but not past the squares: refused too, except where the scale reaches
    // further.
    if (c.id != CodecId::mxfp4) {
      const std::vector<float> x(size_t(c.block_elements), -9e11f);
      EXPECT_THROW(encode(c, x), Error) << c.name;
    }
  }
}

TEST(CodecEncode, ImportanceLowersTheWeightedError) {
  const auto x = gaussian(size_t{1} << 16, 6);
  std::vector<float> importance(x.size());
  for (size_t i = 0; i < x.size(); ++i) importance[i] = i % 16 < 4 ? 100.0f : 1.0f;
  for (const CodecId id : {CodecId::q2_k, CodecId::q3_k, CodecId::q4_k, CodecId::q5_k, CodecId::q6_k,
                           CodecId::iq4_nl, CodecId::iq4_xs}) {
    const Codec& c = codec(id);
    const double plain = rmse(decode(c, encode(c, x), x.size()), x, &importance);
    const double weighted = rmse(decode(c, encode(c, x, importance.data()), x.size()), x, &importance);
    EXPECT_LT(weighted, plain) << c.name;
  }
}

}  // namespace
}  // namespace cairn::codecs
