// Every family on the CPU backend against Hugging Face transformers, and against itself: a prompt in one
// piece, in pieces and token by token gives the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "models/family_goldens.h"

namespace cairn::engine {
namespace {

using models::testing::Golden;
using models::testing::GoldenRun;
using Rows = std::vector<std::vector<float>>;

EngineOptions exact() {
  EngineOptions options;
  options.threads = 2;
  options.kv_form = kv::KvForm::f32;
  return options;
}

void append(Rows& rows, const backends::StepResult& result, size_t vocabulary) {
  for (int64_t r = 0; r < result.rows; ++r)
    rows.emplace_back(result.logits + size_t(r) * vocabulary, result.logits + size_t(r + 1) * vocabulary);
}

// The scores of the prompt's last `last` positions, fed in pieces of `piece` tokens.
Rows prefill(Engine& engine, kv::Sequence& sequence, const GoldenRun& run, size_t piece, size_t last) {
  Rows rows;
  const auto vocabulary = size_t(engine.model().vocabulary_size);
  const std::span<const int32_t> tokens(run.prompt);
  for (size_t done = 0; done < tokens.size(); done += piece) {
    const size_t end = std::min(tokens.size(), done + piece);
    const size_t wanted_from = std::max(done, tokens.size() - last);
    const auto wanted = int64_t(end > wanted_from ? end - wanted_from : 0);
    append(rows, engine.feed(sequence, tokens.subspan(done, end - done), wanted, run.rope_length),
           vocabulary);
  }
  return rows;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, double(std::abs(a[i] - b[i])));
  return worst;
}

// Products with 16-bit weights may round their left side to 8 bits of mantissa as well (2^-9 of each
// element).
bool exact_products(const models::Model& model) {
  return std::all_of(model.weights.begin(), model.weights.end(),
                     [](const auto& w) { return w.codec == codecs::CodecId::f32; });
}

class FamilyOnCpu : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(FamilyOnCpu, AnswersAsTransformersDoes) {
  const Golden golden = models::testing::read_golden(GetParam());
  Engine engine(models::open_model(golden.model), exact());
  const auto vocabulary = size_t(engine.model().vocabulary_size);
  const bool exact_weights = exact_products(engine.model());
  const double allowed = (exact_weights ? 1e-4 : 3e-2) * golden.scale;
  for (const GoldenRun& run : golden.runs) {
    const size_t last = run.logit_positions.size() - (run.greedy.empty() ? 0 : 1);
    const auto in_pieces = [&](size_t piece) {
      kv::Sequence own(engine.kv());
      return prefill(engine, own, run, piece, last);
    };
    const Rows by_sevens = in_pieces(7), by_ones = in_pieces(1);
    kv::Sequence sequence(engine.kv());
    const Rows rows = prefill(engine, sequence, run, run.prompt.size(), last);
    ASSERT_EQ(rows.size(), last);
    for (size_t i = 0; i < last; ++i)
      EXPECT_LE(difference(rows[i], run.logits[i]), allowed) << "position " << run.logit_positions[i];
    EXPECT_EQ(by_sevens, rows);
    EXPECT_EQ(by_ones, rows);
    if (run.greedy.empty()) continue;

    std::vector<int32_t> answer;
    std::vector<float> logits = rows.back();
    while (answer.size() < run.greedy.size()) {
      const auto best = int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
      answer.push_back(best);
      // Where products round, a wrong turn is no news; the golden text keeps the last row comparable.
      const int32_t next = exact_weights ? best : run.greedy[answer.size() - 1];
      const auto result = engine.feed(sequence, std::span(&next, 1), 1, run.rope_length);
      logits.assign(result.logits, result.logits + vocabulary);
    }
    if (exact_weights) {
      EXPECT_EQ(answer, run.greedy);
    }
    EXPECT_LE(difference(logits, run.logits.back()), allowed) << "after the answer";
  }
}

TEST_P(FamilyOnCpu, FusedAndBasicProgramsAgree) {
  const Golden golden = models::testing::read_golden(GetParam());
  EngineOptions options = exact();
  options.threads = 1;
  Engine fused(models::open_model(golden.model), options);
  options.fuse = false;
  Engine basic(models::open_model(golden.model), options);
  for (const GoldenRun& run : golden.runs) {
    kv::Sequence a(fused.kv()), b(basic.kv());
    const Rows rows = prefill(fused, a, run, run.prompt.size(), 4);
    const Rows basic_rows = prefill(basic, b, run, run.prompt.size(), 4);
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_LE(difference(rows[i], basic_rows[i]), 1e-5 * golden.scale) << "row " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, FamilyOnCpu, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
