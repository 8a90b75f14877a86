// What a client of the service asks for, and what it hears back.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/answer_writer.h"
#include "text/answer/reasoning_budget.h"
#include "text/constrain/grammar.h"

namespace cairn::engine {

using RequestId = uint64_t;

struct GenerateRequest {
  std::string id;      // the client's name for it, for logs
  std::string client;  // whose it is: fairness is between clients
  int priority = 0;    // higher first
  std::vector<text::TokenId> prompt;
  text::SamplingParams sampling;  // its n answers are drawn from the same prompt, stop strings included
  int64_t max_tokens = 0;         // of each answer; 0: as many as the context has room for
  bool ignore_end = false;        // go on after an end-of-turn token
  bool reuse = true;              // take keys and values from the prefix cache
  text::GrammarPtr grammar;       // what the answers may be; null: anything
  std::optional<text::ReasoningLimit> reasoning = {};
  std::vector<text::TokenId> visible_special = {};
  // No answer: the prompt's final hidden states, pooled as the model says and scaled to length 1.
  bool embed = false;
};

// Text and tokens of one answer that became certain in a step.
struct Piece {
  int answer = 0;  // 0 to n - 1
  std::string_view text;
  std::span<const text::TokenId> tokens;
  std::span<const text::TokenLogprob> logprobs;  // of the last token, when asked for
  double computed = 0;                           // when its step ended, by steady_seconds()
};

struct Ended {
  int answer = 0;
  Finish finish = Finish::cancelled;
  std::optional<ErrorKind> error;  // present: why it could not go on is in `message`
  std::string message;
  int64_t prompt_tokens = 0, reused_tokens = 0, answer_tokens = 0;
  double queued_seconds = 0, first_token_seconds = 0,
         seconds = 0;  // since submit; the first is until admission
  int preemptions = 0;
  std::vector<float> embedding;
};

// Called on the engine's threads between two steps: it must not block, and never throws. Calls for one answer
// come one after another, those for several answers of a request may come at once. Each answer gets exactly
// one on_end, and nothing after it.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void on_piece(const Piece&) = 0;
  virtual void on_end(const Ended&) = 0;
};

}  // namespace cairn::engine
