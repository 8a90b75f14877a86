// Encoders on the GPU. The goldens against Hugging Face transformers (heads of 8 elements: plain attention);
// models with heads of 32 to 128 elements, whose attention has kernels of its own, against the CPU backend.
// And against themselves: a text gives the same bits alone, beside others and in another place of the step.
#include <gtest/gtest.h>

#include <algorithm>

#include "backends/cuda/device.h"
#include "base/error.h"
#include "engine/embed.h"
#include "engine/encoders_testing.h"
#include "engine/serving/service_testing.h"
#include "models/encoder_goldens.h"

namespace cairn::engine {
namespace {

using namespace testing;
using models::testing::largest_difference;

constexpr double kExact = 1e-4;  // of the largest value, as the families' goldens
// An operand that is rounded to bf16 is off by up to 2^-9 of itself. Six roundings in a row (a norm's result,
// q or k, the logits through them, probabilities, what attention gives, what is between the products) in each
// of up to four layers, and sharp attention that doubles an error of its logits: well below 5 percent of the
// largest value, which is about four deviations.
constexpr double kRounded = 5e-2;

EngineOptions on_gpu(bool exact) {
  EngineOptions o;
  o.place = Place::cuda;
  o.exact = exact;
  o.threads = 2;
  return o;
}

std::string no_gpu() {
  std::string why;
  return cuda::list_devices(&why).empty() ? "not tested on a GPU: " + why : "";
}

// Where the first wrong element is, for a failure that tells more than a number.
void expect_close(const HiddenRows& got, const HiddenRows& wanted, double allowed, int64_t dim,
                  const char* what) {
  ASSERT_EQ(got.size(), wanted.size());
  double worst = 0;
  for (size_t t = 0; t < got.size(); ++t) {
    ASSERT_EQ(got[t].size(), wanted[t].size());
    for (size_t i = 0; i < got[t].size(); ++i) {
      const double d = std::abs(double(got[t][i]) - double(wanted[t][i]));
      if (!(d <= allowed)) {
        ADD_FAILURE() << what << ": text " << t << " of " << got[t].size() / size_t(dim) << " tokens, token "
                      << i / size_t(dim) << ", channel " << i % size_t(dim) << ": " << got[t][i]
                      << " instead of " << wanted[t][i] << "; " << allowed << " allowed";
        return;
      }
      worst = std::max(worst, d);
    }
  }
  std::printf("%s: worst %.3g, allowed %.3g\n", what, worst, allowed);
}

// Of the texts in one step, and each of them elsewhere.
void expect_same_bits_in_any_company(Engine& engine, const Texts& texts, const HiddenRows& together) {
  for (size_t i = 0; i < texts.size(); ++i)
    EXPECT_TRUE(hidden_of(engine, std::span(texts).subspan(i, 1)).front() == together[i])
        << "text " << i << " of " << texts[i].size() << " tokens alone";
  const Texts reversed(texts.rbegin(), texts.rend());
  const auto turned = hidden_of(engine, reversed);
  for (size_t i = 0; i < texts.size(); ++i)
    EXPECT_TRUE(turned[texts.size() - 1 - i] == together[i]) << "text " << i << " in another place";
  EXPECT_TRUE(hidden_of(engine, texts, true) == together) << "enqueued";
}

class EncoderOnGpu : public ::testing::TestWithParam<std::filesystem::path> {
 protected:
  void SetUp() override {
    if (const auto why = no_gpu(); !why.empty()) GTEST_SKIP() << why;
  }
  static void expect_golden(EngineOptions options, double allowed, const char* what) {
    const auto golden = models::testing::read_encoder_golden(GetParam());
    Engine engine(models::open_model(golden.model), options);
    ASSERT_EQ(engine.memory().place, Place::cuda);
    const auto together = hidden_of(engine, golden.texts);
    expect_close(together, golden.hidden, allowed * golden.scale, engine.model().hidden_size, what);
    expect_same_bits_in_any_company(engine, golden.texts, together);
  }
};

TEST_P(EncoderOnGpu, ComputesWhatTransformersComputes) {
  expect_golden(on_gpu(true), kExact, "f32");
  EngineOptions basic = on_gpu(true);
  basic.fuse = false;
  expect_golden(basic, kExact, "f32, basic instructions");
}

TEST_P(EncoderOnGpu, ComputesWithTensorCores) { expect_golden(on_gpu(false), kRounded, "bf16"); }

TEST_P(EncoderOnGpu, EmbedsWhatTransformersEmbeds) {
  const auto golden = models::testing::read_encoder_golden(GetParam());
  EngineOptions options = on_gpu(true);
  options.step_tokens = 100;  // several steps
  Engine engine(models::open_model(golden.model), options);
  size_t calls = 0;
  const auto embeddings = embed(engine, golden.texts, [&](size_t) { ++calls; });
  EXPECT_GT(calls, 1u);
  ASSERT_EQ(embeddings.size(), golden.embeddings.size());
  for (size_t i = 0; i < embeddings.size(); ++i)
    EXPECT_LE(largest_difference(embeddings[i].data(), golden.embeddings[i]), kExact) << "text " << i;
}

INSTANTIATE_TEST_SUITE_P(Goldens, EncoderOnGpu, ::testing::ValuesIn(models::testing::golden_encoders()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

class EncoderShapeOnGpu : public ::testing::TestWithParam<EncoderShape> {
 protected:
  void SetUp() override {
    if (const auto why = no_gpu(); !why.empty()) GTEST_SKIP() << why;
  }
};

// Lengths around the tiles of keys (64 and 128), of rows (128) and of pages (32), and the longest there is.
TEST_P(EncoderShapeOnGpu, ComputesWhatTheCpuComputes) {
  const formats::testing::TemporaryFolder folder;
  const auto path = write_encoder(folder, GetParam());
  const Texts texts = random_texts({300, 1, 129, 640, 77, 128, 33, 500, 2});
  EngineOptions on_cpu;
  on_cpu.place = Place::cpu;
  on_cpu.threads = 4;
  on_cpu.cache_tokens = on_cpu.step_tokens = 2048;
  Engine cpu(models::open_model(path), on_cpu);
  const auto wanted = hidden_of(cpu, texts);
  double scale = 0;
  for (const auto& rows : wanted)
    for (const float v : rows) scale = std::max(scale, double(std::abs(v)));
  ASSERT_TRUE(scale > 1 && scale < 50) << scale;
  for (const bool exact : {true, false}) {
    Engine engine(models::open_model(path), on_gpu(exact));
    ASSERT_EQ(engine.memory().place, Place::cuda);
    const auto together = hidden_of(engine, texts);
    expect_close(together, wanted, (exact ? kExact : kRounded) * scale, engine.model().hidden_size,
                 exact ? "f32" : "bf16");
    expect_same_bits_in_any_company(engine, texts, together);
  }
}

constexpr EncoderShape kShapes[] = {
    {"Bert64", 256, 4, 512},   // prompts' kernel of Hopper
    {"Bert32", 256, 8, 512},   // the others' kernel (MiniLM's heads)
    {"Bert128", 256, 2, 512},  //
    {"Bert80", 320, 4, 512},   //
    {"Bert24", 192, 8, 384},   // plain attention, cache of bf16
    {"ModernBert64", 256, 4, 384, 128},
    {"ModernBert32", 256, 8, 384, 100},
    {"ModernBertNarrow", 256, 4, 384, 6},
    {"LowRank", 256, 4, 512, 0, 96},
    {"LowRankModernBert", 256, 4, 384, 128, 72},
};
INSTANTIATE_TEST_SUITE_P(Shapes, EncoderShapeOnGpu, ::testing::ValuesIn(kShapes),
                         [](const auto& tested) { return std::string(tested.param.name); });

class EncoderEngineOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = no_gpu(); !why.empty()) GTEST_SKIP() << why;
    path_ = write_encoder(folder_, {"bert", 256, 4, 512});
  }
  formats::testing::TemporaryFolder folder_;
  std::filesystem::path path_;
};

TEST_F(EncoderEngineOnGpu, TakesTheGpuByItselfAndWhatWasPlanned) {
  EngineOptions options = on_gpu(false);
  options.place = Place::automatic;
  Engine engine(models::open_model(path_), options);
  EXPECT_EQ(engine.memory().place, Place::cuda) << engine.memory().why;
  EXPECT_FALSE(engine.memory().split);
  EXPECT_EQ(engine.memory().cache_tokens, engine.memory().step_tokens) << "a step full of texts fits";
  EXPECT_EQ(engine.memory().kv_form, kv::KvForm::bf16);
  EXPECT_EQ(engine.context(), kEncoderPositions);
}

TEST_F(EncoderEngineOnGpu, CannotBeSplit) {
  EngineOptions options = on_gpu(false);
  options.gpu_layers = 1;
  try {
    Engine engine(models::open_model(path_), options);
    FAIL() << "nothing thrown";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("as a whole"), std::string::npos) << e.what();
  }
}

// A hundred texts in several steps of many texts each, and through the service: the bits of each alone.
TEST_F(EncoderEngineOnGpu, EmbedsManyTextsAsOneByOne) {
  Engine engine(models::open_model(path_), on_gpu(false));
  Texts texts;
  std::mt19937 random(3);
  for (int t = 0; t < 100; ++t) {
    texts.emplace_back(1 + random() % 90);
    for (auto& id : texts.back()) id = int32_t(random() % uint32_t(kEncoderVocabulary));
  }
  const auto together = embed(engine, texts);
  ASSERT_EQ(together.size(), texts.size());
  for (size_t i = 0; i < texts.size(); i += 7)
    EXPECT_TRUE(embed(engine, std::span(texts).subspan(i, 1)).front() == together[i]) << "text " << i;
}

TEST_F(EncoderEngineOnGpu, ServesEmbeddings) {
  const auto golden =
      models::testing::read_encoder_golden(models::testing::goldens_folder() / "encoders/bert");
  Engine engine(models::open_model(golden.model), on_gpu(false));
  const auto tokenizer = text::load_tokenizer(golden.model);
  const auto expected = embed(engine, golden.texts);
  Service service(engine, *tokenizer, {});
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (int round = 0; round < 4; ++round)
    for (const auto& text : golden.texts) {
      GenerateRequest r;
      r.prompt = text;
      r.embed = true;
      recorders.push_back(std::make_shared<Recorder>());
      service.submit(r, recorders.back());
    }
  for (size_t i = 0; i < recorders.size(); ++i) {
    const auto& end = *recorders[i]->wait().end;
    EXPECT_TRUE(end.embedding == expected[i % expected.size()]) << "request " << i;
  }
}

}  // namespace
}  // namespace cairn::engine
