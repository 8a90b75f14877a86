// What the engine promises whatever the model: the same bits alone and in a batch, on any number of threads,
// with fused and basic instructions; and refusals before anything is loaded.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <random>

#include "backends/cuda/device.h"
#include "base/error.h"

namespace cairn::engine {
namespace {

const std::filesystem::path kTestdata = std::filesystem::path(CAIRN_SOURCE_DIR) / "src/models/testdata";

EngineOptions options(int threads, kv::KvForm form = kv::KvForm::f16) {
  EngineOptions o;
  o.threads = threads;
  o.place = Place::cpu;
  o.kv_form = form;
  o.step_tokens = 64;
  o.step_logits = 16;
  return o;
}

std::vector<int32_t> random_tokens(size_t count, int64_t vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (auto& t : tokens) t = int32_t(random() % uint32_t(vocabulary));
  return tokens;
}

std::vector<float> scores_alone(Engine& engine, std::span<const int32_t> tokens) {
  kv::Sequence sequence(engine.kv());
  const auto result = engine.feed(sequence, tokens, 1, int64_t(tokens.size()));
  return {result.logits, result.logits + engine.model().vocabulary_size};
}

std::vector<float> row(const backends::StepResult& result, int64_t r, int64_t vocabulary) {
  return {result.logits + r * vocabulary, result.logits + (r + 1) * vocabulary};
}

class EngineOn : public ::testing::TestWithParam<const char*> {};

// Sequences of different lengths decode together, beside one that is still reading its prompt.
TEST_P(EngineOn, BatchDoesNotChangeABit) {
  for (const auto form : {kv::KvForm::f16, kv::KvForm::q8_0}) {
    auto o = options(2, form);
    o.cache_tokens = 2048;
    Engine engine(models::open_model(kTestdata / GetParam()), o);
    const int64_t vocabulary = engine.model().vocabulary_size;
    std::vector<std::vector<int32_t>> prompts;
    for (uint32_t i = 0; i < 7; ++i) prompts.push_back(random_tokens(3 + 7 * i, vocabulary, i));
    std::vector<kv::Sequence> sequences;
    for (const auto& prompt : prompts) {
      sequences.emplace_back(engine.kv());
      engine.feed(sequences.back(), std::span(prompt).first(prompt.size() - 1), 0, int64_t(prompt.size()));
    }
    const auto reading = random_tokens(20, vocabulary, 99);
    sequences.emplace_back(engine.kv());
    std::vector<backends::SequenceStep> steps;
    for (size_t i = 0; i < prompts.size(); ++i)
      steps.push_back({&sequences[i], 0, {&prompts[i].back(), 1}, 1, int64_t(prompts[i].size())});
    steps.push_back({&sequences.back(), 0, reading, 1, int64_t(reading.size())});
    const auto result = engine.step(steps);
    std::vector<std::vector<float>> together;
    for (int64_t r = 0; r < result.rows; ++r) together.push_back(row(result, r, vocabulary));
    for (size_t i = 0; i < prompts.size(); ++i)
      EXPECT_EQ(together[i], scores_alone(engine, prompts[i])) << "sequence " << i;
    EXPECT_EQ(together.back(), scores_alone(engine, reading));
  }
}

// A second start maps what the first one packed; neither a bit nor the caller can tell.
TEST_P(EngineOn, KeptWeightsDoNotChangeABit) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / fmt::format("engine_packed_{}", getpid());
  std::filesystem::remove_all(folder);
  auto o = options(2);
  o.packed.path = folder;
  o.packed.least_bytes = 0;
  std::string kept;
  o.on_packed = [&](const std::string& line) { kept = line; };
  std::vector<float> first, second;
  {
    Engine engine(models::open_model(kTestdata / GetParam()), o);
    EXPECT_EQ(engine.weights_origin(), "packed now");
    first = scores_alone(engine, random_tokens(30, engine.model().vocabulary_size, 7));
  }
  EXPECT_NE(kept.find("are kept in"), std::string::npos) << kept;
  {
    Engine engine(models::open_model(kTestdata / GetParam()), o);
    EXPECT_NE(engine.weights_origin().find("mapped from"), std::string::npos) << engine.weights_origin();
    second = scores_alone(engine, random_tokens(30, engine.model().vocabulary_size, 7));
  }
  EXPECT_EQ(first, second);
  std::filesystem::remove_all(folder);
}

TEST_P(EngineOn, ThreadsDoNotChangeABit) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    Engine engine(models::open_model(kTestdata / GetParam()), options(threads));
    results.push_back(scores_alone(engine, random_tokens(50, engine.model().vocabulary_size, 5)));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_P(EngineOn, FusedInstructionsEqualTheirExpansion) {
  std::vector<std::vector<float>> results;
  for (const bool fuse : {true, false}) {
    auto o = options(2);
    o.fuse = fuse;
    Engine engine(models::open_model(kTestdata / GetParam()), o);
    results.push_back(scores_alone(engine, random_tokens(40, engine.model().vocabulary_size, 6)));
  }
  EXPECT_EQ(results[0], results[1]);
}

INSTANTIATE_TEST_SUITE_P(Models, EngineOn,
                         ::testing::Values("llama-bf16", "gemma2", "mixtral", "qwen3-moe", "gpt2", "opt"),
                         [](const auto& model) {
                           std::string name = model.param;
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

std::string refusal(const std::function<void()>& f, ErrorKind kind) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "accepted";
}

TEST(EngineRefuses, MemoryThatWillNotSuffice) {
  auto o = options(1);
  o.memory_limit = 1000;
  const auto message =
      refusal([&] { Engine(models::open_model(kTestdata / "llama-bf16"), o); }, ErrorKind::out_of_memory);
  EXPECT_NE(message.find("1000 are available"), std::string::npos) << message;
  EXPECT_NE(message.find("needs"), std::string::npos) << message;
}

TEST(EngineRefuses, AGpuThatIsNotThereAndTakesTheCpuWhenItMayChoose) {
  std::string why;
  if (!cuda::list_devices(&why).empty()) GTEST_SKIP() << "this machine has a GPU";
  const auto model = models::open_model(kTestdata / "llama-llama3-rope");
  EngineOptions o = options(1);
  o.place = Place::cuda;
  try {
    plan_memory(model, o);
    FAIL() << "a GPU was found";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::unsupported);
    EXPECT_EQ(std::string(e.what()), why);
    EXPECT_NE(why.find("libcuda"), std::string::npos) << why;
  }
  o.place = Place::automatic;
  const auto plan = plan_memory(model, o);
  EXPECT_EQ(plan.place, Place::cpu);
  EXPECT_EQ(plan.why, why);
}

TEST(EngineRefuses, AContextLongerThanMemoryAndSaysWhatFits) {
  const auto model = models::open_model(kTestdata / "llama-bf16");
  auto o = options(1);
  o.context = model.context_length;
  const auto whole = plan_memory(model, o);
  o.memory_limit = whole.weights + whole.scratch + whole.kv / 2;
  const auto message = refusal([&] { plan_memory(model, o); }, ErrorKind::out_of_memory);
  EXPECT_NE(message.find("tokens or less fits"), std::string::npos) << message;
  o.context = 0;
  EXPECT_LT(plan_memory(model, o).context, model.context_length);
}

// The pool of a server: several contexts, within half of what one context leaves.
TEST(Engine, PlansACacheForSeveralSequences) {
  const auto model = models::open_model(kTestdata / "qwen2");
  auto o = options(1);
  o.context = 64;
  const auto one = plan_memory(model, o);
  o.sequences = 10;
  EXPECT_EQ(plan_memory(model, o).cache_tokens, 640);
  EXPECT_EQ(plan_memory(model, o).context, 64);
  o.memory_limit = one.total() + one.kv * 6;
  const auto tight = plan_memory(model, o);
  EXPECT_EQ(tight.cache_tokens, 64 * 4);
  EXPECT_LE(tight.total(), o.memory_limit);
  o.memory_limit = one.total();
  EXPECT_EQ(plan_memory(model, o).cache_tokens, 64);
}

TEST(EngineRefuses, TokensAndLengthsOutsideTheModel) {
  Engine engine(models::open_model(kTestdata / "llama-bf16"), options(1));
  kv::Sequence sequence(engine.kv());
  const auto vocabulary = int32_t(engine.model().vocabulary_size);
  for (const int32_t bad : {-1, vocabulary, INT32_MAX})
    EXPECT_NE(refusal(
                  [&] {
                    engine.feed(sequence, {&bad, 1}, 1, 1);
                  },
                  ErrorKind::invalid_argument)
                  .find("outside the vocabulary"),
              std::string::npos);
  EXPECT_EQ(sequence.length(), 0);
  auto o = options(1);
  o.context = engine.model().context_length + 1;
  EXPECT_NE(
      refusal([&] { Engine(models::open_model(kTestdata / "llama-bf16"), o); }, ErrorKind::invalid_argument)
          .find(std::to_string(engine.model().context_length)),
      std::string::npos);
}

// A step that finds no pages leaves every sequence as it was.
TEST(EngineRefuses, WhenPagesRunOutAndStaysUsable) {
  auto o = options(1);
  o.context = 32;
  Engine engine(models::open_model(kTestdata / "llama-bf16"), o);
  kv::Sequence first(engine.kv()), second(engine.kv());
  const auto tokens = random_tokens(20, engine.model().vocabulary_size, 1);
  engine.feed(first, tokens, 0, 20);
  EXPECT_NE(refusal([&] { engine.feed(second, tokens, 0, 20); }, ErrorKind::out_of_memory), "accepted");
  EXPECT_EQ(first.length(), 20);
  EXPECT_EQ(second.length(), 0);
  engine.feed(first, std::span(tokens).first(1), 1, 21);
  EXPECT_EQ(first.length(), 21);
}

}  // namespace
}  // namespace cairn::engine
