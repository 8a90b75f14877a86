// What every backend is held to: the golden answers of models/testdata.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "models/family_goldens.h"

namespace cairn::engine::testing {

using models::testing::Golden;
using models::testing::GoldenRun;
using Rows = std::vector<std::vector<float>>;

inline EngineOptions exact() {
  EngineOptions options;
  options.place = Place::cpu;
  options.threads = 2;
  options.kv_form = kv::KvForm::f32;
  return options;
}

inline void append(Rows& rows, const backends::StepResult& result, size_t vocabulary) {
  for (int64_t r = 0; r < result.rows; ++r)
    rows.emplace_back(result.logits + size_t(r) * vocabulary, result.logits + size_t(r + 1) * vocabulary);
}

// The scores of the prompt's last `last` positions, fed in pieces of `piece` tokens.
inline Rows prefill(Engine& engine, kv::Sequence& sequence, const GoldenRun& run, size_t piece, size_t last) {
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

inline double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    if (!(d <= worst)) worst = std::isnan(d) ? HUGE_VAL : d;
  }
  return worst;
}

// Products with 16-bit weights may round their left side to 8 bits of mantissa as well (2^-9 of each
// element).
inline bool exact_products(const models::Model& model) {
  return std::all_of(model.weights.begin(), model.weights.end(),
                     [](const auto& w) { return w.codec == codecs::CodecId::f32; });
}

// Share of the scale by which scores may differ on a GPU's tensor cores. These models are tiny (64 channels),
// so that one rounding of 2^-9 weighs more than in a real one. With fp8 weights rows of prompts keep three
// bits of mantissa, 2^-4 each, in place of seven.
inline double allowed_on_tensor_cores(const std::filesystem::path& model) {
  const auto name = model.filename().string();
  const bool e4m3 = name.find("fp8") != std::string::npos || name.find("fbgemm") != std::string::npos;
  return e4m3 ? 1.5e-1 : 5e-2;
}

// Scores within the tolerance of transformers', the same greedy text where products do not round, and the
// same bits however a prompt is cut. allowed_rounded: share of the scale where weights or activations have 16
// bits.
inline void expect_as_transformers(const std::filesystem::path& folder, const EngineOptions& options,
                                   double allowed_rounded = 3e-2) {
  const Golden golden = models::testing::read_golden(folder);
  Engine engine(models::open_model(golden.model), options);
  const auto vocabulary = size_t(engine.model().vocabulary_size);
  // The GPU can compute exactly with any weights, the CPU (alone or beside it) with those of 32 bits.
  const auto& memory = engine.memory();
  const bool on_gpu = memory.place == Place::cuda, on_cpu = !on_gpu || memory.split;
  const bool exact_weights = (!on_gpu || options.exact) && (!on_cpu || exact_products(engine.model()));
  const double allowed = (exact_weights ? 1e-4 : allowed_rounded) * golden.scale;
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

}  // namespace cairn::engine::testing
