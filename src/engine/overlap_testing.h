// Answers with steps begun ahead of their tokens against answers step by step, on any engine.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "engine/generate.h"

namespace cairn::engine::testing {

inline std::filesystem::path stories() {
  return std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories/cairn-stories-q8_0.gguf";
}

// Ways to sample, some of which only the CPU can.
inline std::vector<std::pair<std::string, text::SamplingParams>> sampling_cases() {
  std::vector<std::pair<std::string, text::SamplingParams>> cases;
  const auto add = [&](std::string name, auto set) {
    text::SamplingParams p;
    p.temperature = 1, p.seed = 5 + cases.size();
    set(p);
    cases.emplace_back(std::move(name), std::move(p));
  };
  add("greedy", [](auto& p) { p.temperature = 0; });
  add("plain", [](auto&) {});
  add("top-k", [](auto& p) { p.top_k = 20, p.temperature = 1.3f; });
  add("top-p", [](auto& p) { p.top_p = 0.9f; });
  add("all filters", [](auto& p) { p.top_k = 50, p.top_p = 0.95f, p.min_p = 0.02f; });
  add("penalties",
      [](auto& p) { p.repetition_penalty = 1.2f, p.presence_penalty = 0.4f, p.frequency_penalty = 0.3f; });
  add("window", [](auto& p) { p.repetition_penalty = 1.2f, p.penalty_window = 8; });
  add("bias", [](auto& p) { p.logit_bias = {{20, 4.f}, {30, -100.f}}; });
  add("typical", [](auto& p) { p.typical_p = 0.8f; });
  add("logprobs", [](auto& p) { p.logprobs = 3; });
  add("stop", [](auto& p) { p.temperature = 0, p.stop = {" and", "."}; });
  return cases;
}

inline void expect_same_answers(Engine& engine, const text::Tokenizer& tokenizer) {
  const auto prompt = tokenizer.encode("Once upon a time there was", {});
  for (const auto& [name, sampling] : sampling_cases())
    for (const int64_t tokens : {1, 2, 3, 40}) {
      SCOPED_TRACE(name + ", " + std::to_string(tokens) + " tokens");
      GenerateOptions options;
      options.sampling = sampling;
      options.max_tokens = tokens;
      Session plain(engine, tokenizer), ahead(engine, tokenizer);
      options.overlap = false;
      const auto want = plain.generate(prompt, options);
      options.overlap = true;
      const auto got = ahead.generate(prompt, options);
      EXPECT_EQ(got.tokens, want.tokens);
      EXPECT_EQ(got.text, want.text);
      EXPECT_EQ(got.finish, want.finish);
      EXPECT_EQ(got.logprobs.size(), want.logprobs.size());
      EXPECT_EQ(got.decode_steps, want.decode_steps);
      EXPECT_EQ(ahead.cached_tokens(), plain.cached_tokens());
      // What was fed ahead is forgotten: the conversation goes on the same.
      auto longer = prompt;
      longer.insert(longer.end(), want.tokens.begin(), want.tokens.end());
      longer.push_back(prompt.back());
      EXPECT_EQ(ahead.generate(longer, options).tokens, plain.generate(longer, options).tokens);
      // Stopped by whoever reads.
      int pieces = 0;
      const auto until_third = [&](std::string_view) { return ++pieces < 3; };
      const auto cut = ahead.generate(prompt, options, 0, until_third);
      pieces = 0;
      options.overlap = false;
      const auto cut_plain = plain.generate(prompt, options, 0, until_third);
      EXPECT_EQ(cut.text, cut_plain.text);
      EXPECT_EQ(cut.tokens, cut_plain.tokens);
      EXPECT_EQ(ahead.cached_tokens(), plain.cached_tokens());
    }
}

}  // namespace cairn::engine::testing
