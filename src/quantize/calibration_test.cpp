#include "quantize/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "backends/cpu/executor.h"
#include "engine/memory_plan.h"
#include "formats/testing.h"
#include "quantize/calibration_text.h"

namespace cairn::quantize {
namespace {

using formats::testing::message_of;
using formats::testing::TemporaryFolder;
using Samples = std::vector<std::vector<int32_t>>;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(CAIRN_SOURCE_DIR) / "src/models/testdata" / name;
}

struct Wanted {
  program::Value x, chosen;
  bool per_choice = false;
};

Wanted wanted(const program::Operation& operation) {
  if (const auto* op = std::get_if<program::MatMul>(&operation)) return {op->x, {}, false};
  if (const auto* op = std::get_if<program::GatedMatMul>(&operation)) return {op->x, {}, false};
  if (const auto* op = std::get_if<program::ExpertMatMul>(&operation))
    return {op->x, op->chosen, op->per_choice};
  return {};
}

// Mean squares by value and expert (-1: none), from the whole program at once, an instruction at a time.
using Squares = std::map<std::pair<int32_t, int32_t>, std::vector<double>>;
struct Expected {
  Squares squares;
  std::map<std::pair<int32_t, int32_t>, int64_t> rows;
};
Expected expected(const models::Model& model, const Samples& samples, ThreadPool& pool) {
  program::Program whole = model.program;
  for (size_t i = 0; i < whole.instructions.size(); ++i) {
    whole.stages.push_back({int32_t(i), int32_t(i) + 1, {}, {}});
    if (const auto w = wanted(whole.instructions[i].operation); w.x && i > 0)
      for (const auto v : {w.x, w.chosen})
        if (v) whole.stages[i - 1].out.push_back(v);
  }
  kv::KvPool kv(engine::kv_config(model, whole.kv.size(), kv::KvForm::f16, 32, 256));
  cpu::Executor executor(whole, model.weights,
                         cpu::Weights(whole, model.weights, model.checkpoint.files, pool), pool, kv, {256, 1},
                         256);
  Expected result;
  for (const auto& sample : samples) {
    kv::Sequence sequence(kv);
    sequence.append(int64_t(sample.size()));
    const backends::SequenceStep step{
        &sequence, 0, sample, 1, int64_t(sample.size()), backends::RowClass::prompt};
    executor.begin_stages({&step, 1}, nullptr);
    std::set<std::pair<int32_t, int32_t>> seen;
    for (size_t i = 0; i < whole.instructions.size(); ++i) {
      const auto w = wanted(whole.instructions[i].operation);
      if (w.x && whole.instructions[i].layer >= 0 && seen.emplace(w.x.id, w.chosen.id).second) {
        const int64_t cols = whole.width(w.x), top_k = w.chosen ? whole.width(w.chosen) : 1;
        const auto* x = reinterpret_cast<const float*>(executor.hand_out(w.x));
        const auto* chosen =
            w.chosen ? reinterpret_cast<const int32_t*>(executor.hand_out(w.chosen)) : nullptr;
        for (int64_t pair = 0; pair < int64_t(sample.size()) * top_k; ++pair) {
          const std::pair key(w.x.id, chosen ? chosen[pair] : -1);
          auto& sums = result.squares[key];
          sums.resize(size_t(cols));
          ++result.rows[key];
          const float* line = x + (w.per_choice || !chosen ? pair : pair / top_k) * cols;
          for (int64_t c = 0; c < cols; ++c) sums[size_t(c)] += double(line[c]) * double(line[c]);
        }
      }
      executor.run_stage(i);
    }
  }
  for (auto& [key, sums] : result.squares)
    for (double& sum : sums) sum /= double(result.rows[key]);
  return result;
}

Samples some_samples() {
  Samples samples(3);
  for (int32_t i = 0; i < 22; ++i) samples[size_t(i) % 3].push_back((i * 37 + 11) % 61);
  samples[1].resize(3);
  return samples;
}

class Families : public ::testing::TestWithParam<const char*> {};

TEST_P(Families, InputsAreThoseOfTheWholeModel) {
  TemporaryFolder folder;
  ThreadPool pool(2);
  const auto model = models::open_model(golden(GetParam()));
  const auto samples = some_samples();
  const auto right = expected(model, samples, pool);
  ASSERT_FALSE(right.squares.empty());
  for (const int64_t step_rows : {1024, 4}) {  // samples together, and each in pieces
    Calibration calibration(model, samples, folder.path(), pool, step_rows);
    for (int32_t layer = 0; layer < model.layers; ++layer) {
      std::vector<std::pair<int32_t, int32_t>> keys;
      for (const auto& instruction : model.program.instructions)
        if (const auto w = wanted(instruction.operation); w.x && instruction.layer == layer)
          for (const auto& [key, sums] : right.squares)
            if (key.first == w.x.id && (key.second >= 0) == bool(w.chosen) &&
                std::find(keys.begin(), keys.end(), key) == keys.end())
              keys.push_back(key);
      for (const auto moments : {Moments::products, Moments::squares}) {
        std::vector<InputMoments> found(keys.size());
        std::vector<Tap> taps;
        for (size_t i = 0; i < keys.size(); ++i)
          taps.push_back({{keys[i].first}, keys[i].second, moments, &found[i]});
        calibration.pass(model, layer, taps, moments == Moments::squares);
        for (size_t i = 0; i < keys.size(); ++i) {
          const auto& sums = right.squares.at(keys[i]);
          EXPECT_EQ(found[i].rows, right.rows.at(keys[i]));
          ASSERT_EQ(found[i].cols, int64_t(sums.size()));
          double size = 0;
          for (const double sum : sums) size += sum / double(sums.size());
          for (size_t c = 0; c < sums.size(); ++c)
            ASSERT_NEAR(double(moments == Moments::products ? found[i].products.at(int64_t(c), int64_t(c))
                                                            : found[i].squares[c]),
                        sums[c], 0.02 * (sums[c] + size))
                << "layer " << layer << " value " << keys[i].first << " expert " << keys[i].second
                << " column " << c;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Families,
                         ::testing::Values("llama-bf16", "gemma2", "gemma3", "gpt2", "opt", "opt-post-norm",
                                           "phi3", "mixtral", "mixtral-window", "olmoe", "qwen2", "qwen2-moe",
                                           "qwen3-moe", "llama-gptq", "qwen3.gguf"));

TEST(CalibrationText, SamplesFitTheText) {
  std::vector<int32_t> tokens(1000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = int32_t(i);
  CalibrationShape shape;
  shape.seq = 301;
  auto samples = calibration_samples(tokens, 7777, shape, "f");
  ASSERT_EQ(samples.size(), 4u);  // three in a row, and the last 300 tokens
  EXPECT_EQ(samples[1][0], 7777);
  EXPECT_EQ(samples[1][1], 300);
  EXPECT_EQ(samples[3].back(), 999);
  EXPECT_EQ(samples[3].size(), 301u);
  shape.samples = 2;  // from anywhere, the same every time
  samples = calibration_samples(tokens, std::nullopt, shape, "f");
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples, calibration_samples(tokens, std::nullopt, shape, "f"));
  EXPECT_NE(samples[0], samples[1]);
  shape.seq.reset();  // nobody asked: one sample of all
  samples = calibration_samples(tokens, std::nullopt, shape, "f");
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_EQ(samples[0], tokens);
  shape.context = 64;
  EXPECT_EQ(calibration_samples(tokens, std::nullopt, shape, "f")[0].size(), 64u);
}

TEST(CalibrationText, TooShortIsAnErrorWithBothNumbers) {
  const std::vector<int32_t> tokens(100);
  CalibrationShape shape;
  shape.seq = 128;
  const auto message = message_of([&] { calibration_samples(tokens, std::nullopt, shape, "short.txt"); });
  EXPECT_NE(message.find("short.txt has 100 tokens"), std::string::npos) << message;
  EXPECT_NE(message.find("128"), std::string::npos);
  shape.seq = 4096;
  EXPECT_NE(
      message_of([&] { calibration_samples(tokens, std::nullopt, shape, "f"); }).find("context has 2048"),
      std::string::npos);
  shape.seq.reset();
  EXPECT_NE(
      message_of([&] { calibration_samples(std::vector<int32_t>(10), 1, shape, "f"); }).find("10 tokens"),
      std::string::npos);
}

TEST(Calibration, TokensOutsideOfTheVocabularyAreRefused) {
  TemporaryFolder folder;
  ThreadPool pool(1);
  const auto model = models::open_model(golden("llama-bf16"));
  EXPECT_NE(message_of([&] {
              Calibration(model, {{1, 1 << 20}}, folder.path(), pool);
            }).find("vocabulary"),
            std::string::npos);
}

TEST(CalibrationText, TheDefaultIsPlainText) {
  EXPECT_GT(default_text().size(), 6000u);
  for (const char c : default_text()) EXPECT_TRUE(c == '\n' || (c >= ' ' && c < 127)) << int(c);
}

}  // namespace
}  // namespace cairn::quantize
