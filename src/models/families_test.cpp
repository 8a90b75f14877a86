// Every family against Hugging Face transformers: the program that a config becomes, executed the plain way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/family_goldens.h"
#include "models/plain_executor.h"

namespace cairn::models {
namespace {

using testing::Golden;
using testing::GoldenRun;

class Family : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(Family, AnswersAsTransformersDoes) {
  const Golden golden = testing::read_golden(GetParam());
  const Model model = open_model(golden.model);
  ASSERT_FALSE(golden.runs.empty());
  for (const GoldenRun& run : golden.runs) {
    std::vector<int32_t> ids = run.prompt;
    ids.insert(ids.end(), run.greedy.begin(), run.greedy.end());
    const auto logits = testing::plain_logits(model, ids, run.rope_length);
    const auto vocabulary = size_t(model.vocabulary_size);
    ASSERT_EQ(logits.size(), ids.size() * vocabulary);
    for (size_t i = 0; i < run.logit_positions.size(); ++i) {
      ASSERT_EQ(run.logits[i].size(), vocabulary);
      double worst = 0;
      for (size_t v = 0; v < vocabulary; ++v) {
        const float got = logits[size_t(run.logit_positions[i]) * vocabulary + v];
        worst = std::max(worst, double(std::abs(got - run.logits[i][v])));
      }
      // Both round to fp32 in their own order: 7.6e-6 at most when this was written.
      EXPECT_LE(worst, 1e-4 * golden.scale)
          << "position " << run.logit_positions[i] << " of a prompt of " << run.prompt.size();
    }
    for (size_t i = 0; i < run.greedy.size(); ++i) {
      const auto row = logits.begin() + std::ptrdiff_t((run.prompt.size() - 1 + i) * vocabulary);
      EXPECT_EQ(std::max_element(row, row + std::ptrdiff_t(vocabulary)) - row, run.greedy[i])
          << "token " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, Family, ::testing::ValuesIn(testing::golden_models()),
                         [](const auto& tested) { return testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::models
