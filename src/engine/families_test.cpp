// Every family on the CPU backend against Hugging Face transformers, and against itself: a prompt in one
// piece, in pieces and token by token gives the same bits.
#include <gtest/gtest.h>

#include "engine/families_testing.h"

namespace cairn::engine {
namespace {

using namespace testing;

class FamilyOnCpu : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(FamilyOnCpu, AnswersAsTransformersDoes) { expect_as_transformers(GetParam(), exact()); }

TEST_P(FamilyOnCpu, FusedAndBasicProgramsAgree) {
  const Golden golden = models::testing::read_golden(GetParam());
  EngineOptions options = exact();
  options.threads = 1;
  Engine fused(models::open_model(golden.model), options);
  options.fuse = false;
  Engine basic(models::open_model(golden.model), options);
  for (const GoldenRun& run : golden.runs) {
    kv::Sequence a(fused.kv()), b(basic.kv());
    const Rows rows = prefill(fused, a, run, run.prompt.size(), 4);
    const Rows basic_rows = prefill(basic, b, run, run.prompt.size(), 4);
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_LE(difference(rows[i], basic_rows[i]), 1e-5 * golden.scale) << "row " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, FamilyOnCpu, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
