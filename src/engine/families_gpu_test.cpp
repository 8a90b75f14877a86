// Every family on the GPU against Hugging Face transformers: with f32 arithmetic to 1e-4, with the tensor
// cores' bf16 to what their rounding allows; and against itself, a prompt cut in any way gives the same bits.
#include <gtest/gtest.h>

#include "backends/cuda/device.h"
#include "engine/families_testing.h"

namespace cairn::engine {
namespace {

using namespace testing;

class FamilyOnGpu : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  void SetUp() override {
    std::string why;
    if (cuda::list_devices(&why).empty()) GTEST_SKIP() << "not tested on a GPU: " << why;
  }
  static EngineOptions options(bool exact_arithmetic) {
    EngineOptions o;
    o.place = Place::cuda;
    o.exact = exact_arithmetic;
    o.threads = 2;
    return o;
  }
};

TEST_P(FamilyOnGpu, AnswersAsTransformersDoes) { expect_as_transformers(GetParam(), options(true)); }

// These models are tiny (64 channels), so that one rounding of 2^-9 weighs more than in a real one.
TEST_P(FamilyOnGpu, AnswersWithTensorCores) { expect_as_transformers(GetParam(), options(false), 5e-2); }

INSTANTIATE_TEST_SUITE_P(Goldens, FamilyOnGpu, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
