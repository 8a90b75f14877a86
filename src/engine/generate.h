// From a prompt to an answer: feed, sample, decode, until a stop.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/answer_writer.h"
#include "engine/engine.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace cairn::engine {

struct GenerateOptions {
  text::SamplingParams sampling;
  int64_t max_tokens = 0;   // 0: as many as the context has room for
  bool ignore_end = false;  // benches: go on after an end-of-turn token
  program::Trace* trace = nullptr;
  // Whether tokens are drawn where the scores are and the next step begins before they are known here;
  // absent: where the engine's steps overlap with the host's work. The answers are the same.
  std::optional<bool> overlap;
  std::function<void(int64_t done, int64_t total)> on_prefill;
  std::function<bool()> cancelled;  // looked at between steps
};

struct Generated {
  std::vector<int32_t> tokens;  // without the end-of-turn token
  std::string text;
  std::vector<std::vector<text::TokenLogprob>> logprobs;  // per token, when asked for
  Finish finish = Finish::length;
  int64_t prompt_tokens = 0, reused_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  int64_t decode_steps = 0;  // that gave a token
};

// One conversation's cache. A prompt that begins with what is cached computes only the rest.
class Session {
 public:
  Session(Engine&, const text::Tokenizer&);

  // Calls on_text with each piece of text as it becomes complete; false stops the answer. The prompt and the
  // answer stay cached for the next call. Throws Error(invalid_argument) with both numbers when the prompt
  // does not fit.
  Generated generate(std::span<const int32_t> prompt, const GenerateOptions&, int stream = 0,
                     const std::function<bool(std::string_view)>& on_text = {});

  int64_t cached_tokens() const { return int64_t(cached_.size()); }

 private:
  Engine& engine_;
  const text::Tokenizer& tokenizer_;
  kv::Sequence sequence_;
  std::vector<int32_t> cached_;  // the tokens whose keys and values the sequence holds
  int64_t rope_length_ = 0;
};

}  // namespace cairn::engine
