#include "quantize/gptq_columns.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "formats/testing.h"
#include "quantize/dense.h"
#include "quantize/inverse_factor.h"

namespace cairn::quantize {
namespace {

using formats::testing::message_of;

std::vector<float> normal(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (auto& v : values) v = distribution(random);
  return values;
}

// Rows of few hidden causes and some noise, with columns of different sizes.
std::vector<float> correlated(int64_t rows, int64_t cols, uint32_t seed) {
  const int64_t causes = cols / 8;
  const auto mixing = normal(size_t(causes * cols), seed), cause = normal(size_t(rows * causes), seed + 1);
  auto x = normal(size_t(rows * cols), seed + 2);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      float& to = x[size_t(r * cols + c)];
      to *= 0.3f;
      for (int64_t k = 0; k < causes; ++k)
        to += cause[size_t(r * causes + k)] * mixing[size_t(k * cols + c)] / std::sqrt(float(causes));
      to *= 0.2f + float(c % 7);
    }
  return x;
}

InputMoments moments_of(const std::vector<float>& x, int64_t cols) {
  const int64_t rows = int64_t(x.size()) / cols;
  InputMoments m{rows, cols, {}, SymmetricMatrix(cols)};
  ThreadPool pool(1);
  const auto turned = transposed({x.data(), rows, cols, cols}, pool);
  for (int64_t i = 0; i < cols; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r)
        sum += double(x[size_t(r * cols + i)]) * double(x[size_t(r * cols + j)]);
      m.products.at(j, i) = float(sum / double(rows));
    }
  return m;
}

float value(const GptqMatrix& m, int64_t row, int64_t col) {
  return value_of(m.codes[size_t(row * m.cols + col)],
                  m.grids[size_t(m.column_groups[size_t(col)] * m.rows + row)]);
}

// ||W X - Wq X||^2 / ||W X||^2
double error(const GptqMatrix& m, const std::vector<float>& w, const InputMoments& h) {
  double wrong = 0, all = 0;
  const auto n = m.cols;
  for (int64_t row = 0; row < m.rows; ++row) {
    std::vector<double> d;
    for (int64_t c = 0; c < n; ++c) d.push_back(double(w[size_t(row * n + c)]) - double(value(m, row, c)));
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const double x = double(h.products.symmetric(i, j));
        wrong += d[size_t(i)] * x * d[size_t(j)];
        all += double(w[size_t(row * n + i)]) * x * double(w[size_t(row * n + j)]);
      }
  }
  return wrong / all;
}

class Gptq : public ::testing::Test {
 protected:
  static constexpr int64_t kRows = 256, kCols = 512;
  Gptq() : w_(normal(size_t(kRows * kCols), 7)), h_(shared()) {}
  static const InputMoments& shared() {
    static const InputMoments moments = moments_of(correlated(2048, kCols, 8), kCols);
    return moments;
  }
  GptqMatrix round(const GptqRules& rules, std::vector<float> w) {
    InputMoments h = h_;
    const auto factor = gptq_factor(h, rules, "w", pool_);
    return gptq_round(std::move(w), kRows, kCols, factor, rules, pool_);
  }
  ThreadPool pool_{2};
  std::vector<float> w_;
  InputMoments h_;
};

TEST_F(Gptq, ABlockAtATimeIsColumnByColumn) {
  for (const int way : {0, 1, 2, 3}) {
    GptqRules rules;
    rules.grid.bits = 3;
    rules.group = way == 0 ? 0 : way == 3 ? 64 : 128;
    rules.act_order = way == 2;
    rules.block = 128;
    const auto blocks = round(rules, w_);
    rules.block = 1;
    const auto columns = round(rules, w_);
    // A weight that lies in the middle between two codes may fall to either side; the rest of its row then
    // goes another way, to an error as small.
    int64_t rows_that_differ = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      double worst = 0;
      for (int64_t c = 0; c < kCols; ++c)
        worst = std::max(worst, std::abs(double(value(blocks, row, c)) - double(value(columns, row, c))));
      rows_that_differ += worst > 1e-5;
    }
    EXPECT_LE(rows_that_differ, kRows / 16) << "way " << way;
    EXPECT_NEAR(error(blocks, w_, h_) / error(columns, w_, h_), 1, 1e-2) << "way " << way;
  }
}

TEST_F(Gptq, LosesLessThanRoundingToNearest) {
  for (const bool symmetric : {false, true})
    for (const int way : {0, 1, 2}) {
      GptqRules rules;
      rules.grid = {3, symmetric, false};
      rules.act_order = way > 0;
      rules.scattered = way > 1;
      const double plain = error(round_to_nearest(w_, kRows, kCols, rules, pool_), w_, h_);
      const double found = error(round(rules, w_), w_, h_);
      // The bar is on the norm, which is the square root of this.
      EXPECT_LT(std::sqrt(found / plain), 0.6) << "symmetric " << symmetric << ", way " << way;
    }
}

TEST_F(Gptq, GroupsAreScatteredOnlyWhenAsked) {
  GptqRules rules;
  rules.act_order = true;
  auto groups = round(rules, w_).column_groups;
  for (int64_t c = 0; c < kCols; ++c) ASSERT_EQ(groups[size_t(c)], c / 128);
  rules.scattered = true;
  groups = round(rules, w_).column_groups;
  std::vector<int> sizes(4);
  int64_t elsewhere = 0;
  for (int64_t c = 0; c < kCols; ++c)
    ++sizes[size_t(groups[size_t(c)])], elsewhere += groups[size_t(c)] != c / 128;
  EXPECT_EQ(sizes, std::vector<int>(4, 128));
  EXPECT_GT(elsewhere, kCols / 2);
}

TEST_F(Gptq, DeadInputsGetZeroAndAreCounted) {
  for (const int64_t c : {3, 200})
    for (int64_t i = 0; i < kCols; ++i) h_.products.at(std::min(c, i), std::max(c, i)) = 0;
  GptqRules rules;
  rules.act_order = true;
  InputMoments h = h_;
  const auto factor = gptq_factor(h, rules, "w", pool_);
  EXPECT_EQ(factor.dead_columns(), 2);
  const auto m = gptq_round(w_, kRows, kCols, factor, rules, pool_);
  for (int64_t row = 0; row < kRows; ++row) EXPECT_EQ(value(m, row, 3), 0) << row;
}

TEST_F(Gptq, BadInputsAreNamed) {
  InputMoments h = h_;
  h.products.at(5, 5) = NAN;
  EXPECT_NE(
      message_of([&] { gptq_factor(h, {}, "the.weight", pool_); }).find("the.weight: the calibration text"),
      std::string::npos);
  // Positive definite only with a damping of a tenth, and not at all.
  for (const float wrong : {0.9f, -50.f}) {
    h = h_;
    h.products.scale(0);
    for (int64_t i = 0; i < kCols; ++i) h.products.at(i, i) = 1;
    h.products.at(0, 1) = wrong > 0 ? 1.05f : wrong;
    if (wrong > 0) {
      const auto factor = gptq_factor(h, {}, "w", pool_);
      EXPECT_NEAR(factor.damping, 0.1, 1e-9);
      // U^T U [[1.1, 1.05], [1.05, 1.1]] = 1
      const double u00 = double(factor.upper->at(0, 0)), u01 = double(factor.upper->at(0, 1)),
                   u11 = double(factor.upper->at(1, 1));
      EXPECT_NEAR(u00 * u00 * 1.1 + u00 * u01 * 1.05, 1, 1e-4);
      EXPECT_NEAR(u00 * u01 * 1.1 + (u01 * u01 + u11 * u11) * 1.05, 0, 1e-3);
    } else {
      EXPECT_NE(message_of([&] { gptq_factor(h, {}, "the.weight", pool_); }).find("the.weight: the inputs"),
                std::string::npos);
    }
  }
}

TEST(InverseFactor, IsTheCholeskyFactorOfTheInverse) {
  ThreadPool pool(2);
  for (const int64_t n : {1, 5, 191, 192, 193, 450}) {
    const auto h = moments_of(correlated(3 * n + 8, std::max<int64_t>(n, 8), 3), std::max<int64_t>(n, 8));
    SymmetricMatrix u(n);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = i; j < n; ++j) u.at(i, j) = h.products.at(i, j) + (i == j ? 0.5f : 0);
    const auto damped = u;
    ASSERT_TRUE(inverse_factor(u, pool));
    // U^T U H = 1: (U H) solves it column by column. Its error grows with the condition, about 1e3 here.
    std::vector<double> product(size_t(n * n));
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = i; k < n; ++k)
        for (int64_t j = 0; j < n; ++j)
          product[size_t(i * n + j)] += double(u.at(i, k)) * double(damped.symmetric(k, j));
    double worst = 0;
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> line(static_cast<size_t>(n));
      for (int64_t k = 0; k <= i; ++k)
        for (int64_t j = 0; j < n; ++j) line[size_t(j)] += double(u.at(k, i)) * product[size_t(k * n + j)];
      for (int64_t j = 0; j < n; ++j) {
        worst = std::max(worst, std::abs(line[size_t(j)] - (i == j)));
        if (j < i && j / SymmetricMatrix::kStrip == i / SymmetricMatrix::kStrip) {
          EXPECT_EQ(u.at(i, j), 0);
        }
      }
    }
    EXPECT_LT(worst, 2e-3) << n;
  }
}

TEST(InverseFactor, WhatFailsIsAsItWas) {
  ThreadPool pool(2);
  constexpr int64_t kCols = 450;
  const auto h = moments_of(correlated(3 * kCols, kCols, 3), kCols).products;
  for (const int64_t wrong : {5, 200, 449}) {  // in the first strip, which comes last, to the last
    auto u = h;
    for (int64_t i = 0; i < kCols; ++i) u.at(i, i) += i == wrong ? -1e3f : 0.5f;
    const auto before = u;
    ASSERT_FALSE(inverse_factor(u, pool));
    for (int64_t i = 0; i < kCols; ++i)
      for (int64_t j = i; j < kCols; ++j)
        ASSERT_NEAR(u.at(i, j), before.at(i, j), 1e-4) << wrong << ": " << i << ", " << j;
  }
}

TEST(SymmetricMatrix, RowsAndColumnsChangePlacesTogether) {
  constexpr int64_t kSize = 400;
  SymmetricMatrix m(kSize);
  const auto value = [](int64_t i, int64_t j) { return float(std::min(i, j) * kSize + std::max(i, j)); };
  for (int64_t i = 0; i < kSize; ++i)
    for (int64_t j = i; j < kSize; ++j) m.at(i, j) = value(i, j);
  std::vector<int64_t> order(kSize);
  for (int64_t i = 0; i < kSize; ++i) order[size_t(i)] = i;
  for (const auto& [a, b] : {std::pair(0, 399), std::pair(3, 4), std::pair(100, 250), std::pair(191, 192)}) {
    m.exchange(a, b);
    std::swap(order[size_t(a)], order[size_t(b)]);
  }
  for (int64_t i = 0; i < kSize; ++i)
    for (int64_t j = i; j < kSize; ++j) ASSERT_EQ(m.at(i, j), value(order[size_t(i)], order[size_t(j)]));
}

TEST(Dense, SquaresAreSummed) {
  ThreadPool pool(2);
  for (const auto& [rows, cols] : {std::pair(1, 3), std::pair(70, 130), std::pair(33, 1100)}) {
    const auto x = normal(size_t(rows * cols), 4);
    SymmetricMatrix sums(cols);
    add_squares({x.data(), rows, cols, cols}, sums, pool);
    add_squares({x.data(), rows, cols, cols}, sums, pool);
    for (int64_t i = 0; i < cols; i += 3)
      for (int64_t j = i; j < cols; j += 7) {
        double sum = 0, size = 0;
        for (int64_t r = 0; r < rows; ++r) {
          const double p = 2 * double(x[size_t(r * cols + i)]) * double(x[size_t(r * cols + j)]);
          sum += p, size += std::abs(p);
        }
        EXPECT_NEAR(double(sums.at(i, j)), sum, size * 0x1p-7);  // bf16 on both sides
      }
  }
}

}  // namespace
}  // namespace cairn::quantize
