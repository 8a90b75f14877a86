// One HTTP request that generates: from prompts to the engine, from its tokens to what a façade writes.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/serving/request.h"
#include "serve/api/api_error.h"
#include "serve/api/serving.h"
#include "text/answer/answer_parser.h"

namespace cairn::serve {

using text::AnswerDelta;

// The token of a delta when log probabilities were asked for: the likeliest ones, the token itself among
// them.
struct TokenLogprobs {
  text::TokenId token = -1;
  std::span<const text::TokenLogprob> alternatives;
};

struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0, reasoning_tokens = 0;
};

struct ChoiceEnd {
  engine::Finish finish = engine::Finish::end_of_turn;
  int tool_calls = 0;  // that the answer holds
  bool unfinished_call = false;
  std::string stop;  // the stop string that ended it; "" when unknown
  Usage usage;       // of this choice; the prompt is in all of its prompt's choices
  std::vector<float> embedding;
};

// One of the API's dialects. Calls are never concurrent, and mostly come from the engine's thread: they must
// be cheap.
class Facade {
 public:
  virtual ~Facade() = default;
  virtual void started() {}  // the engine has accepted all prompts
  virtual void delta(int choice, const AnswerDelta&, const TokenLogprobs*) = 0;
  virtual void choice_ended(int choice, ChoiceEnd) = 0;
  virtual void all_ended(const Usage&) = 0;
  virtual void failed(const ApiError&) = 0;  // instead of all_ended

  double computed = 0;  // when the step ended that the next delta comes from; 0: not known
};

struct GenerationPlan {
  std::string id, path;                          // of the HTTP request
  std::vector<engine::GenerateRequest> prompts;  // one or more; choices are numbered through them
  bool logprobs = false;
  bool name_stop = false;  // fill ChoiceEnd::stop
  // How answers are read; see text::AnswerParser. Without parse they are content as they are.
  bool parse = false, parse_tools = false;
  std::string prompt_tail, beginning;  // beginning: of an answer that goes on
  Json tools;
};

// Throws ApiError when the engine takes not all of them; then it runs none, and nothing was called but
// failed() never.
void generate(Serving&, GenerationPlan, std::unique_ptr<Facade>, const std::shared_ptr<Reply>&);

}  // namespace cairn::serve
