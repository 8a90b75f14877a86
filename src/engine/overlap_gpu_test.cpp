// Tokens drawn on the GPU, with the next step enqueued before they are known here: the same answers as drawn
// on the CPU, alone and in a batch.
#include "backends/cuda/device.h"
#include "engine/overlap_testing.h"
#include "models/family_goldens.h"

namespace cairn::engine {
namespace {

bool no_gpu(std::string& why) { return cuda::list_devices(&why).empty(); }

EngineOptions on_gpu() {
  EngineOptions o;
  o.place = Place::cuda;
  o.threads = 2;
  return o;
}

TEST(OverlapOnGpu, GivesTheAnswersOfStepByStep) {
  std::string why;
  if (no_gpu(why)) GTEST_SKIP() << "not tested on a GPU: " << why;
  for (const bool exact : {false, true}) {
    auto o = on_gpu();
    o.exact = exact;
    o.context = 256;
    o.cache_tokens = 1024;
    Engine engine(models::open_model(testing::stories()), o);
    EXPECT_EQ(engine.overlaps(), !exact);  // exact tables of embeddings lie on the host
    testing::expect_same_answers(engine, *text::load_tokenizer(testing::stories()));
  }
}

// Answers of `tokens` tokens to each prompt, all in one batch, drawn on the device with steps ahead.
std::vector<std::vector<int32_t>> answers(Engine& engine, const std::vector<std::vector<int32_t>>& prompts,
                                          const std::vector<text::SamplingParams>& sampling, int64_t tokens) {
  const auto vocabulary = int32_t(engine.model().vocabulary_size);
  std::vector<kv::Sequence> sequences;
  std::vector<text::Sampler> samplers;
  for (size_t b = 0; b < prompts.size(); ++b) {
    sequences.emplace_back(engine.kv());
    samplers.emplace_back(sampling[b], vocabulary, 0);
    samplers.back().prompt(prompts[b]);
    const auto most = std::span(prompts[b]).first(prompts[b].size() - 1);
    if (!most.empty()) engine.feed(sequences.back(), most, 0, 128);
  }
  std::vector<std::vector<int32_t>> all(prompts.size());
  const auto finish = [&] {
    const auto result = engine.finish();
    for (size_t b = 0; b < prompts.size(); ++b) {
      const auto token = samplers[b].drawn(result.tokens[b]);
      samplers[b].accept(token);
      all[b].push_back(token);
    }
  };
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<text::Draw> draws;
    for (auto& s : samplers) draws.push_back(s.next_draw(t > 0 ? 1 : 0).value());
    std::vector<backends::SequenceStep> steps(prompts.size());
    for (size_t b = 0; b < steps.size(); ++b) {
      steps[b].sequence = &sequences[b];
      steps[b].tokens = {&prompts[b].back(), 1};
      steps[b].logit_rows = 1, steps[b].rope_length = 128;
      steps[b].row_class = backends::RowClass::decode;
      steps[b].draw = &draws[b];
      steps[b].drawn_row = t > 0 ? int64_t(b) : -1;
    }
    engine.enqueue(steps);
    if (t > 0) finish();
  }
  finish();
  return all;
}

class OverlapOnGpuOf : public ::testing::TestWithParam<std::filesystem::path> {};

// Every golden family: drawn on the device in a batch, one by one, and from scores on the CPU.
TEST_P(OverlapOnGpuOf, BatchAndPlaceOfDrawingDoNotShow) {
  std::string why;
  if (no_gpu(why)) GTEST_SKIP() << "not tested on a GPU: " << why;
  auto o = on_gpu();
  o.context = 0;
  o.step_logits = 16;
  o.sequences = 16;
  Engine engine(models::open_model(GetParam()), o);
  const int64_t vocabulary = engine.model().vocabulary_size;
  const int64_t tokens = std::min<int64_t>(24, engine.context() - 20);
  std::vector<std::vector<int32_t>> prompts;
  std::vector<text::SamplingParams> sampling;
  for (int b = 0; b < 9; ++b) {
    std::vector<int32_t> prompt;
    for (int i = 0; i <= b; ++i) prompt.push_back(int32_t((37 * i + 11 * b + 3) % vocabulary));
    prompts.push_back(prompt);
    text::SamplingParams p;
    p.seed = uint64_t(b), p.temperature = b % 3 == 0 ? 0.f : 1.f;
    p.top_k = b % 4 == 1 ? 10 : 0, p.top_p = b % 5 == 2 ? 0.9f : 1.f;
    p.frequency_penalty = b % 2 ? 0.5f : 0.f;
    sampling.push_back(p);
  }
  const auto together = answers(engine, prompts, sampling, tokens);
  for (size_t b = 0; b < prompts.size(); ++b) {
    EXPECT_EQ(answers(engine, {prompts[b]}, {sampling[b]}, tokens)[0], together[b]) << "alone, row " << b;
    kv::Sequence sequence(engine.kv());
    text::Sampler sampler(sampling[b], int32_t(vocabulary), 0);
    sampler.prompt(prompts[b]);
    const auto most = std::span(prompts[b]).first(prompts[b].size() - 1);
    if (!most.empty()) engine.feed(sequence, most, 0, 128);
    std::vector<int32_t> one;
    int32_t fed = prompts[b].back();
    for (int64_t t = 0; t < tokens; ++t) {
      const auto scores = engine.feed(sequence, {&fed, 1}, 1, 128, {}, nullptr, backends::RowClass::decode);
      one.push_back(fed = sampler.sample({scores.logits, size_t(vocabulary)}));
      sampler.accept(fed);
    }
    EXPECT_EQ(one, together[b]) << "on the CPU, row " << b;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, OverlapOnGpuOf, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
