// The shipped model as DFloat11 answers as it does in bf16, bit for bit.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "formats/testing.h"
#include "models/df11_testing.h"

namespace cairn::engine {
namespace {

const std::filesystem::path kModel = std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories";

EngineOptions on_cpu() {
  EngineOptions o;
  o.threads = 2;
  o.place = Place::cpu;
  o.step_tokens = 64;
  return o;
}

// The prompt's tokens and 256 greedy ones, with the scores that each was chosen from.
std::pair<std::vector<int32_t>, std::vector<float>> answer(Engine& engine) {
  std::vector<int32_t> tokens = {1, 17, 300, 45, 2000, 9, 88, 1234};
  std::vector<float> scores;
  kv::Sequence sequence(engine.kv());
  const auto vocabulary = engine.model().vocabulary_size;
  for (size_t fed = 0; tokens.size() < 8 + 256;) {
    const auto result = engine.feed(sequence, std::span(tokens).subspan(fed), 1, 300);
    fed = tokens.size();
    scores.insert(scores.end(), result.logits, result.logits + vocabulary);
    tokens.push_back(int32_t(std::max_element(result.logits, result.logits + vocabulary) - result.logits));
  }
  return {tokens, scores};
}

TEST(Df11Model, AnswersBitForBitAsBf16) {
  const formats::testing::TemporaryFolder folder;
  models::testing::write_df11_folder(kModel, folder.path() / "df11", true);
  Engine plain(models::open_model(kModel), on_cpu());
  Engine grouped(models::open_model(folder.path() / "df11"), on_cpu());
  // Two thirds of the file and one group's matrices, the table's, instead of all.
  EXPECT_LT(grouped.memory().weights, plain.memory().weights);
  const auto want = answer(plain), got = answer(grouped);
  EXPECT_EQ(want.first, got.first);
  EXPECT_TRUE(want.second == got.second) << "scores differ";
}

TEST(Df11Model, IsRefusedAtLoadWhenItsCodesAreDamaged) {
  const formats::testing::TemporaryFolder folder;
  const auto path = folder.path() / "df11";
  models::testing::write_df11_folder(kModel, path, false);
  {
    const auto file = formats::read_safetensors(path / "model.safetensors");
    for (const auto& tensor : file.tensors)
      if (tensor.name == "model.layers.2.encoded_exponent") {
        std::fstream out(path / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
        out.seekp(tensor.bytes.data() - file.file.bytes().data() + 1000);
        out.write("\xff\xff\xff\xff\xff\xff\xff\xff", 8);
      }
  }
  const auto message = formats::testing::message_of([&] { Engine(models::open_model(path), on_cpu()); });
  EXPECT_NE(message.find("group model.layers.2: field encoded_exponent"), std::string::npos) << message;
}

}  // namespace
}  // namespace cairn::engine
