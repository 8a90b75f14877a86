// Encoders on the CPU backend against Hugging Face transformers, and against themselves: a text gives the
// same bits alone and beside others.
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/embed.h"
#include "engine/encoders_testing.h"
#include "engine/generate.h"
#include "models/encoder_goldens.h"
#include "text/tokenizer.h"

namespace cairn::engine {
namespace {

using models::testing::largest_difference;
using testing::hidden_of;

EngineOptions on_cpu(int threads = 2) {
  EngineOptions options;
  options.place = Place::cpu;
  options.threads = threads;
  return options;
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

// Shapes that the goldens do not have; the GPU is held to what this computes.
TEST(Encoder, GivesTheSameBitsAloneAndTogether) {
  const auto texts = testing::random_texts({129, 1, 640, 77});
  for (const testing::EncoderShape& shape :
       {testing::EncoderShape{"bert", 64, 1, 96}, testing::EncoderShape{"modernbert", 64, 2, 96, 100},
        testing::EncoderShape{"low rank", 64, 1, 96, 0, 24},
        testing::EncoderShape{"low rank modernbert", 64, 1, 96, 128, 24}}) {
    SCOPED_TRACE(shape.name);
    const formats::testing::TemporaryFolder folder;
    const auto path = testing::write_encoder(folder, shape);
    EngineOptions options = on_cpu();
    options.cache_tokens = options.step_tokens = 1024;
    Engine engine(models::open_model(path), options);
    const bool fused =
        std::any_of(engine.program().instructions.begin(), engine.program().instructions.end(),
                    [](const auto& instruction) {
                      return std::holds_alternative<program::LowRankMlp>(instruction.operation);
                    });
    EXPECT_EQ(fused, shape.rank > 0) << "the CPU fuses low-rank products";
    const auto together = hidden_of(engine, texts);
    double squares = 0;
    for (const float v : together[2]) squares += double(v) * v;
    EXPECT_NEAR(squares / double(together[2].size()), 1, 0.3) << "of about unit variance";
    for (size_t i = 0; i < texts.size(); ++i)
      EXPECT_EQ(hidden_of(engine, std::span(texts).subspan(i, 1)).front(), together[i]) << "text " << i;
    options.fuse_low_rank = false;
    Engine unfused(models::open_model(path), options);
    EXPECT_EQ(hidden_of(unfused, texts), together);
  }
}

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
}

}  // namespace
}  // namespace cairn::engine
