#include "backends/cpu/experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace cairn::cpu {
namespace {

TEST(Route, KeepsTheLargestAndBreaksTiesByNumber) {
  const std::vector<float> scores = {0.5f, 2, -1, 2, 1};
  std::vector<int32_t> chosen(3);
  std::vector<float> weights(3);
  route_row(program::Routing::softmax_topk, scores, chosen, weights);
  EXPECT_EQ(chosen, (std::vector<int32_t>{1, 3, 4}));
  double all = 0;
  for (const float s : scores) all += std::exp(s);
  EXPECT_NEAR(weights[0], std::exp(2.) / all, 1e-7);
  EXPECT_NEAR(weights[2], std::exp(1.) / all, 1e-7);
  route_row(program::Routing::softmax_topk_renorm, scores, chosen, weights);
  EXPECT_NEAR(weights[0] + weights[1] + weights[2], 1, 1e-6);
}

TEST(Route, AgreesWithASort) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 200; ++round) {
    std::vector<float> scores(64);
    for (float& s : scores) s = std::round(normal(random) * 8) / 8;  // coarse: many ties
    std::vector<int32_t> order(64), chosen(8);
    std::vector<float> weights(8);
    for (int i = 0; i < 64; ++i) order[size_t(i)] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return scores[size_t(a)] > scores[size_t(b)]; });
    route_row(program::Routing::softmax_topk, scores, chosen, weights);
    order.resize(8);
    EXPECT_EQ(chosen, order);
  }
}

TEST(ExpertGroups, SortsPairsByExpertAndKeepsTheirOrder) {
  const std::vector<int32_t> chosen = {3, 0, 3, 1, 0, 3};
  ExpertGroups groups;
  groups.assign(chosen, 5);
  EXPECT_EQ(groups.begin, (std::vector<int32_t>{0, 2, 3, 3, 6, 6}));
  EXPECT_EQ(groups.pairs, (std::vector<int32_t>{1, 4, 3, 0, 2, 5}));
}

}  // namespace
}  // namespace cairn::cpu
