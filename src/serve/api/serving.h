// What all endpoints share: the model that is served and how requests reach it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/workers.h"
#include "engine/serving/service.h"
#include "serve/api/json_text.h"
#include "serve/api/user_text.h"
#include "serve/http/server.h"
#include "text/answer/answer_format.h"
#include "text/answer/messages.h"
#include "text/chat_template.h"
#include "text/constrain/grammar.h"

namespace cairn::serve {

struct ApiOptions {
  std::string model_name;            // what /v1/models shows
  std::vector<std::string> aliases;  // other names that requests may use
  // Used where a request names none; absent: OpenAI's default, 1.
  std::optional<float> temperature, top_p;
  int worker_threads = 2;
  size_t worker_queue = 4096;  // requests that were received but not yet tokenised; more get 429
  double stuck_seconds = 30;   // /health is red when a step has been running for so long
  bool page = true;            // serve the web page at /
  // One line per request that reached the engine: ids, counts, times; no text. From any thread, must not
  // block.
  std::function<void(std::string_view)> log;
};

struct Serving {
  Serving(engine::Service&, const text::Tokenizer&, ApiOptions);

  bool serves(std::string_view model) const;
  void warm_json_object() const;
  // Throws ApiError(404) for a model that is not served; nullptr and null mean the served one.
  void check_model(const Json* name) const;

  engine::Service& service;
  const text::Tokenizer& tokenizer;
  const ApiOptions options;
  const int64_t created;  // seconds since 1970
  std::optional<text::ChatTemplate> chat_template;
  text::AnswerFormat format;               // plain text without a template
  std::optional<text::ChatPrompts> chats;  // with chat_template
  const SpecialTexts special;
  mutable text::GrammarCompiler grammars;  // locks by itself
  std::atomic<bool> closing{false};
  Workers workers;  // last: its threads use the rest
};

// "chatcmpl-" and 24 random letters and digits.
std::string make_id(std::string_view prefix);
int64_t unix_seconds();

// Members of a request that its schema has accepted. null counts as missing.
const Json* member(const Json& object, const char* name);
bool flag(const Json& object, const char* name, bool otherwise);
int64_t whole(const Json& object, const char* name, int64_t otherwise);
double number(const Json& object, const char* name, double otherwise);
std::string text_of(const Json& object, const char* name);  // "" when missing

}  // namespace cairn::serve
