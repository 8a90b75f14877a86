// A model on the GPU and the CPU together: every family against transformers, whichever layers or experts the
// CPU has; and rows that share a step with others, in an order that is not the GPU's.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backends/cuda/device.h"
#include "engine/families_testing.h"

namespace cairn::engine {
namespace {

using namespace testing;

class SplitOnGpu : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  void SetUp() override {
    std::string why;
    if (cuda::list_devices(&why).empty()) GTEST_SKIP() << "not tested on a GPU: " << why;
    const auto model = models::open_model(GetParam());
    layers = model.layers;
    for (const auto& instruction : model.program.instructions)
      mixture |= std::holds_alternative<program::ExpertMatMul>(instruction.operation);
  }
  static EngineOptions options(bool exact_arithmetic, int64_t gpu_layers, int64_t cpu_experts) {
    EngineOptions o;
    o.place = Place::cuda;
    o.exact = exact_arithmetic;
    o.threads = 2;
    o.gpu_layers = gpu_layers;
    o.cpu_expert_layers = cpu_experts;
    return o;
  }
  int64_t layers = 0;
  bool mixture = false;
};

TEST_P(SplitOnGpu, AnswersAsTransformersDoes) {
  for (int64_t on_gpu = 1; on_gpu < layers; ++on_gpu) {
    SCOPED_TRACE(fmt::format("{} of {} layers on the GPU", on_gpu, layers));
    expect_as_transformers(GetParam(), options(true, on_gpu, 0));
  }
  if (!mixture) return;
  SCOPED_TRACE("routed experts on the CPU");
  expect_as_transformers(GetParam(), options(true, layers, layers));
  expect_as_transformers(GetParam(), options(true, layers, 1));
}

TEST_P(SplitOnGpu, AnswersWithTensorCores) {
  expect_as_transformers(GetParam(), options(false, std::max<int64_t>(layers - 1, 1), 0),
                         allowed_on_tensor_cores(GetParam()));
  if (mixture)
    expect_as_transformers(GetParam(), options(false, layers, layers), allowed_on_tensor_cores(GetParam()));
}

std::vector<int32_t> tokens(size_t count, int64_t vocabulary, int32_t seed) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(int32_t((int64_t(i) * 7919 + seed * 104729) % vocabulary));
  return ids;
}

// A prompt between two answers lies behind them on the GPU, and in its place on the CPU. Steps of new tokens
// are graphs from their second time on.
TEST_P(SplitOnGpu, CompanyDoesNotChangeARow) {
  for (const int64_t experts : {int64_t{0}, layers}) {
    if (experts > 0 && !mixture) continue;
    Engine engine(models::open_model(GetParam()),
                  options(false, experts > 0 ? layers : std::max<int64_t>(layers - 1, 1), experts));
    const int64_t vocabulary = engine.model().vocabulary_size;
    const std::vector<std::vector<int32_t>> prompts = {tokens(9, vocabulary, 1), tokens(13, vocabulary, 2),
                                                       tokens(5, vocabulary, 3)};
    const auto decode = [&](kv::Sequence& sequence, const int32_t& token) {
      return backends::SequenceStep{&sequence, 0, {&token, 1}, 1, 32, backends::RowClass::decode};
    };
    const int32_t next[] = {3, 5, 7};
    Rows alone, together;
    const auto keep = [&](Rows& rows, const backends::StepResult& result) {
      append(rows, result, size_t(vocabulary));
    };
    {
      kv::Sequence a(engine.kv()), b(engine.kv()), c(engine.kv());
      engine.feed(a, prompts[0], 0, 32);
      engine.feed(b, prompts[1], 0, 32);
      for (const int32_t& token : next) {
        auto one = decode(a, token), other = decode(b, token);
        keep(alone, engine.step({&one, 1}));
        if (&token == next + 1) keep(alone, engine.feed(c, prompts[2], 2, 32));
        keep(alone, engine.step({&other, 1}));
      }
    }
    kv::Sequence a(engine.kv()), b(engine.kv()), c(engine.kv());
    engine.feed(a, prompts[0], 0, 32);
    engine.feed(b, prompts[1], 0, 32);
    for (const int32_t& token : next) {
      std::vector<backends::SequenceStep> steps = {decode(a, token)};
      if (&token == next + 1) steps.push_back({&c, 0, prompts[2], 2, 32});
      steps.push_back(decode(b, token));
      keep(together, engine.step(steps));
    }
    EXPECT_EQ(alone, together);
    program::Trace trace;
    auto one = decode(a, next[0]);
    engine.step({&one, 1}, &trace);
    EXPECT_EQ(trace.records().size(), engine.program().instructions.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, SplitOnGpu, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
