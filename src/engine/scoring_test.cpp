#include "engine/scoring.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace cairn::engine {
namespace {

TEST(RunningMean, GivesMeanAndStandardError) {
  RunningMean m;
  EXPECT_EQ(m.standard_error(), 0);
  for (const double v : {1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 6}) m.add(v);
  EXPECT_EQ(m.count(), 4);
  EXPECT_DOUBLE_EQ(m.mean(), 1e9 + 3);
  // squares of differences: 4 + 1 + 0 + 9 = 14; variance 14 / 3; of the mean of four: 14 / 12
  EXPECT_NEAR(m.standard_error(), std::sqrt(14.0 / 12), 1e-6);
}

TEST(TextWindows, CutsTheTextAndPutsTheFirstTokenBeforeEach) {
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7};
  using Windows = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(text_windows(tokens, 3, std::nullopt),
            (Windows{{1, 2, 3}, {4, 5, 6}}));  // 7 alone predicts nothing
  EXPECT_EQ(text_windows(tokens, 3, 0), (Windows{{0, 1, 2}, {0, 3, 4}, {0, 5, 6}, {0, 7}}));
  EXPECT_EQ(text_windows({}, 3, 0), Windows{});
}

TEST(Surprise, IsTheNegativeLogProbability) {
  const std::vector<float> scores = {1000, 1001, 1002};  // exp would overflow
  EXPECT_NEAR(surprise(scores, 2), std::log(1 + std::exp(-1.0) + std::exp(-2.0)), 1e-12);
  EXPECT_NEAR(surprise(scores, 0) - surprise(scores, 1), 1, 1e-12);
}

TEST(CompareRows, GivesTheDivergenceOfTwoDistributions) {
  const std::vector<float> a = {std::log(0.5f), std::log(0.25f), std::log(0.25f)},
                           b = {std::log(0.25f) + 3, std::log(0.5f) + 3, std::log(0.25f) + 3};
  const auto d = compare_rows(a, b, 0);
  EXPECT_NEAR(d.surprise[0], std::log(2.0), 1e-6);
  EXPECT_NEAR(d.surprise[1], std::log(4.0), 1e-6);
  EXPECT_NEAR(d.divergence, 0.5 * std::log(2.0) - 0.25 * std::log(2.0), 1e-6);
  EXPECT_FALSE(d.same_choice);
  const auto same = compare_rows(a, a, 1);
  EXPECT_EQ(same.divergence, 0);
  EXPECT_TRUE(same.same_choice);
}

TEST(CompareRows, TokensThatTheFirstRulesOutDoNotCount) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<float> a = {0, never, 0}, b = {0, 0, 0};
  EXPECT_NEAR(compare_rows(a, b, 0).divergence, std::log(3.0) - std::log(2.0), 1e-12);
  EXPECT_EQ(compare_rows(b, a, 0).divergence, std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace cairn::engine
