// The library from outside: real weights in, the text that an independent implementation writes out.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "api/model_impl.h"
#include "base/cpu_features.h"
#include "base/testing.h"

namespace cairn {
namespace {

const std::filesystem::path kModels = std::filesystem::path(CAIRN_SOURCE_DIR) / "models";

// bf16 products round their left side from the vnni level on; below it they are f32, as in the reference.
struct F32Products {
  Isa before = active_isa();
  F32Products() { set_active_isa(std::min(before, Isa::avx512)); }
  ~F32Products() { set_active_isa(before); }
};

nlohmann::json goldens() {
  std::ifstream file(kModels / "cairn-stories/expected_greedy.json");
  return nlohmann::json::parse(file).at("cases");
}

LoadOptions exact() {
  LoadOptions options;
  options.threads = 2;
  options.kv = "f32";
  return options;
}

TEST(ShippedModel, WritesWhatTransformersWrites) {
  const F32Products products;
  Model model(kModels / "cairn-stories", exact());
  for (const auto& golden : goldens()) {
    const auto prompt = golden.at("prompt_ids").get<std::vector<int32_t>>();
    EXPECT_EQ(model.tokenize(golden.at("rendered").get<std::string>(), golden.at("kind") == "raw"), prompt);
    engine::GenerateOptions options;
    options.max_tokens = 64;
    const auto expected = golden.at("greedy_ids").get<std::vector<int32_t>>();
    auto tokens = model.impl().session.generate(prompt, options).tokens;
    // The reference lists the end token, the engine stops before it.
    if (tokens.size() + 1 == expected.size()) tokens.push_back(*model.impl().tokenizer->special().eos);
    EXPECT_EQ(tokens, expected) << golden.at("prompt");
  }
}

TEST(ShippedModel, FirstScoresAreTheReferences) {
  const F32Products products;
  Model model(kModels / "cairn-stories", exact());
  auto& engine = model.impl().engine;
  for (const auto& golden : goldens()) {
    const auto prompt = golden.at("prompt_ids").get<std::vector<int32_t>>();
    kv::Sequence sequence(engine.kv());
    const auto step = engine.feed(sequence, prompt, 1, int64_t(prompt.size()));
    // Scores reach about 15; 2^-24 * sqrt(512) * some dozens of operations stays below 1e-4 of that.
    for (const auto& top : golden.at("first_top10"))
      EXPECT_NEAR(step.logits[top.at("id").get<int>()], top.at("logit").get<double>(), 15e-4);
  }
}

TEST(ShippedModel, GgufTellsTheSameStoryToo) {
  LoadOptions options;
  options.threads = 2;
  Model model(kModels / "cairn-stories/cairn-stories-q8_0.gguf", options);
  Parameters parameters;
  parameters.max_tokens = 40;
  std::string streamed;
  const auto answer = model.generate("Once upon a time", parameters, [&](std::string_view text) {
    streamed += text;
    return true;
  });
  EXPECT_EQ(streamed, answer.text);
  EXPECT_EQ(answer.tokens.size(), 40u);
  EXPECT_EQ(answer.finish, "length");
  EXPECT_EQ(answer.text.rfind(", there was a", 0), 0u) << answer.text;
}

TEST(ShippedModel, ChatRemembersAndReusesItsCache) {
  LoadOptions options;
  options.threads = 2;
  Model model(kModels / "cairn-stories", options);
  ASSERT_TRUE(model.has_chat_template());
  Parameters parameters;
  parameters.max_tokens = 40;
  std::vector<Message> messages = {{"user", "My name is Barbara."}};
  const auto first = model.chat(messages, parameters);
  EXPECT_NE(first.text.find("Barbara"), std::string::npos) << first.text;
  messages.push_back({"assistant", first.text});
  messages.push_back({"user", "What is my name?"});
  const auto second = model.chat(messages, parameters);
  EXPECT_NE(second.text.find("Barbara"), std::string::npos) << second.text;
  EXPECT_EQ(second.finish, "end of turn");
  // Everything but the new turn is still cached.
  EXPECT_GE(second.reused_tokens, first.prompt_tokens + int64_t(first.tokens.size()));
}

TEST(ShippedModel, StopsWhereToldAndWhenTold) {
  LoadOptions options;
  options.threads = 2;
  Model model(kModels / "cairn-stories", options);
  Parameters parameters;
  parameters.max_tokens = 100;
  parameters.stop = {"robot"};
  const auto stopped = model.generate("Once upon a time", parameters);
  EXPECT_EQ(stopped.finish, "stop string");
  EXPECT_EQ(stopped.text, ", there was a little ");
  parameters.stop = {};
  int pieces = 0;
  const auto cancelled =
      model.generate("Once upon a time", parameters, [&](std::string_view) { return ++pieces < 3; });
  EXPECT_EQ(cancelled.finish, "cancelled");
  EXPECT_LE(cancelled.tokens.size(), 4u);
}

TEST(ShippedModel, SameSeedSameTextAnotherSeedAnother) {
  LoadOptions options;
  options.threads = 2;
  Model model(kModels / "cairn-stories", options);
  Parameters parameters;
  parameters.max_tokens = 40;
  parameters.temperature = 1;
  parameters.seed = 1;
  const auto a = model.generate("Once upon a time", parameters);
  const auto b = model.generate("Once upon a time", parameters);
  parameters.seed = 2;
  const auto c = model.generate("Once upon a time", parameters);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NE(a.tokens, c.tokens);
}

TEST(ShippedModel, EmbedsNearTextsNearer) {
  LoadOptions options;
  options.threads = 2;
  Model model(kModels / "cairn-stories", options);
  const auto cat = model.embed("The little cat was sad because it had lost its ball.");
  const auto kitten = model.embed("The little kitten was sad because it had lost its toy.");
  const auto sum = model.embed("3 times 4 is 12.");
  const auto dot = [](const auto& a, const auto& b) {
    double total = 0;
    for (size_t i = 0; i < a.size(); ++i) total += double(a[i]) * b[i];
    return total;
  };
  EXPECT_NEAR(dot(cat, cat), 1, 1e-5);
  EXPECT_GT(dot(cat, kitten), dot(cat, sum) + 0.05);
}

TEST(Stories260kData, PrintsTheExpectedGreedyText) {
  CAIRN_NEED_DATA("weights/stories260k/expected_greedy.txt");
  const auto folder = testing::data_folder() / "weights/stories260k";
  std::ifstream file(folder / "expected_greedy.txt");
  const std::string expected((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const char* name : {"checkpoint_legacy.bin", "checkpoint_v1.bin"}) {
    Model model(folder / name, exact());
    Parameters parameters;
    parameters.max_tokens = 210;
    const auto answer = model.generate("", parameters);
    const std::string text = answer.text.substr(answer.text.find_first_not_of(' '));
    const std::string wanted = expected.substr(0, expected.find_last_not_of(" \n") + 1);
    EXPECT_EQ(text.substr(0, wanted.size()), wanted) << name;
  }
}

}  // namespace
}  // namespace cairn
