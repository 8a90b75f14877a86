// Encoders on the CPU backend against Hugging Face transformers, and against themselves: a text gives the
// same bits alone and beside others.
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/embed.h"
#include "engine/generate.h"
#include "models/encoder_goldens.h"
#include "text/tokenizer.h"

namespace cairn::engine {
namespace {

using models::testing::EncoderGolden;
using models::testing::largest_difference;

EngineOptions on_cpu(int threads = 2) {
  EngineOptions options;
  options.place = Place::cpu;
  options.threads = threads;
  return options;
}

// The hidden states of texts that are computed in one step.
std::vector<std::vector<float>> hidden_of(Engine& engine, std::span<const std::vector<int32_t>> texts) {
  std::vector<std::unique_ptr<kv::Sequence>> sequences;
  std::vector<backends::SequenceStep> steps;
  for (const auto& text : texts) {
    sequences.push_back(std::make_unique<kv::Sequence>(engine.kv()));
    steps.push_back({sequences.back().get(), 0, text, int64_t(text.size()), int64_t(text.size())});
  }
  const auto result = engine.step(steps);
  EXPECT_EQ(result.logits, nullptr);
  std::vector<std::vector<float>> rows;
  const float* at = result.hidden;
  for (const auto& text : texts) {
    const size_t size = text.size() * size_t(engine.model().hidden_size);
    rows.emplace_back(at, at + size);
    at += size;
  }
  return rows;
}

class EncoderOnCpu : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(EncoderOnCpu, ComputesWhatTransformersComputes) {
  const auto golden = models::testing::read_encoder_golden(GetParam());
  EngineOptions options = on_cpu();
  options.cache_tokens = 1024;
  options.step_tokens = 1024;
  Engine engine(models::open_model(golden.model), options);
  ASSERT_TRUE(engine.model().encoder());
  EXPECT_EQ(engine.model().context_length, 80);
  EXPECT_EQ(engine.program().kv.size(), 1u) << "layers share their cache slot";
  const auto together = hidden_of(engine, golden.texts);
  options.fuse = false;
  options.threads = 1;
  Engine basic(models::open_model(golden.model), options);
  for (size_t i = 0; i < golden.texts.size(); ++i) {
    EXPECT_LE(largest_difference(together[i].data(), golden.hidden[i]), 1e-4 * golden.scale) << "text " << i;
    EXPECT_EQ(hidden_of(engine, std::span(golden.texts).subspan(i, 1)).front(), together[i]) << "text " << i;
    const auto alone = hidden_of(basic, std::span(golden.texts).subspan(i, 1)).front();
    EXPECT_LE(largest_difference(alone.data(), together[i]), 1e-5 * golden.scale) << "text " << i;
  }
}

TEST_P(EncoderOnCpu, EmbedsWhatTransformersEmbeds) {
  const auto golden = models::testing::read_encoder_golden(GetParam());
  Engine engine(models::open_model(golden.model), on_cpu());
  size_t calls = 0;
  const auto embeddings = embed(engine, golden.texts, [&](size_t) { ++calls; });
  ASSERT_EQ(embeddings.size(), golden.texts.size());
  EXPECT_GT(calls, 1u) << "the cache holds one text of full length, so they take several steps";
  EXPECT_LT(calls, golden.texts.size());
  for (size_t i = 0; i < embeddings.size(); ++i) {
    ASSERT_EQ(embeddings[i].size(), golden.embeddings[i].size());
    EXPECT_LE(largest_difference(embeddings[i].data(), golden.embeddings[i]), 1e-5) << "text " << i;
    EXPECT_EQ(embed(engine, std::span(golden.texts).subspan(i, 1)).front(), embeddings[i]) << "text " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, EncoderOnCpu, ::testing::ValuesIn(models::testing::golden_encoders()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

TEST(Encoder, TokenizesSentencesAsTransformersDoes) {
  const auto golden =
      models::testing::read_encoder_golden(models::testing::goldens_folder() / "encoders/bert");
  const auto tokenizer = text::load_tokenizer(golden.model);
  ASSERT_FALSE(golden.sentences.empty());
  const size_t first = golden.texts.size() - golden.sentences.size();
  for (size_t i = 0; i < golden.sentences.size(); ++i)
    EXPECT_EQ(tokenizer->encode(golden.sentences[i]), golden.texts[first + i]) << golden.sentences[i];
}

TEST(Encoder, RefusesWhatOnlyGeneratorsDo) {
  const auto golden =
      models::testing::read_encoder_golden(models::testing::goldens_folder() / "encoders/bert");
  Engine engine(models::open_model(golden.model), on_cpu());
  const auto tokenizer = text::load_tokenizer(golden.model);
  Session session(engine, *tokenizer);
  const auto refused = [](auto&& f, const char* part) {
    try {
      f();
      ADD_FAILURE() << "nothing thrown: " << part;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  refused([&] { session.generate(golden.texts[0], {}); }, "cairn embed");
  kv::Sequence sequence(engine.kv());
  refused([&] { engine.feed(sequence, golden.texts[0], 1, 5); }, "asks for 1 rows");
  const std::vector<std::vector<int32_t>> bad[] = {{{}}, {std::vector<int32_t>(81, 7)}, {{96}}, {{-1}}};
  refused([&] { embed(engine, bad[0]); }, "no tokens");
  refused([&] { embed(engine, bad[1]); }, "81 tokens");
  refused([&] { embed(engine, bad[2]); }, "vocabulary");
  refused([&] { embed(engine, bad[3]); }, "vocabulary");
  EngineOptions gpu = on_cpu();
  gpu.place = Place::cuda;
  refused([&] { Engine(models::open_model(golden.model), gpu); }, "--device cpu");
}

}  // namespace
}  // namespace cairn::engine
