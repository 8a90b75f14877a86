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

TEST_P(FamilyOnGpu, AnswersWithTensorCores) {
  expect_as_transformers(GetParam(), options(false), allowed_on_tensor_cores(GetParam()));
}

// As a server of many sequences computes: answers' rows with the kernels of prompts.
TEST_P(FamilyOnGpu, AnswersWithTensorCoresForMany) {
  EngineOptions o = options(false);
  o.sequences = 128;
  o.cache_tokens = 4096;
  expect_as_transformers(GetParam(), o, allowed_on_tensor_cores(GetParam()));
}

// Forty answers in one step against each by itself, with the kernels for few answers and for many.
TEST_P(FamilyOnGpu, CompanyDoesNotChangeAnAnswersRow) {
  for (const int64_t expected : {1, 128}) {
    EngineOptions o = options(false);
    o.sequences = expected;
    o.cache_tokens = 8192;
    o.step_logits = 64;
    Engine engine(models::open_model(models::testing::read_golden(GetParam()).model), o);
    const auto vocabulary = engine.model().vocabulary_size;
    constexpr int kSequences = 40;
    std::vector<std::vector<int32_t>> tokens(kSequences);
    std::vector<kv::Sequence> sequences;
    std::vector<backends::SequenceStep> steps;
    for (int s = 0; s < kSequences; ++s) {
      for (int i = 0; i < 2 + 5 * s % 23; ++i)
        tokens[size_t(s)].push_back(int32_t((7 * s + 31 * i) % (vocabulary - 1)));
      sequences.emplace_back(engine.kv());
      engine.feed(sequences.back(), std::span(tokens[size_t(s)]).first(tokens[size_t(s)].size() - 1), 0, 64);
    }
    for (int s = 0; s < kSequences; ++s)
      steps.push_back({&sequences[size_t(s)], 0, std::span(tokens[size_t(s)]).last(1), 1, 64,
                       backends::RowClass::decode});
    const auto together = engine.step(steps);
    const std::vector<float> all(together.logits, together.logits + kSequences * vocabulary);
    for (int s = 0; s < kSequences; s += 3) {
      sequences[size_t(s)].truncate(int64_t(tokens[size_t(s)].size()) - 1);
      const auto alone = engine.step(std::span(steps).subspan(size_t(s), 1));
      ASSERT_TRUE(std::equal(alone.logits, alone.logits + vocabulary, all.begin() + s * vocabulary))
          << "sequence " << s << " of an engine for " << expected;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, FamilyOnGpu, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
