// POST /v1/completions
#include <fmt/format.h>

#include "serve/api/constraint.h"
#include "serve/api/endpoints.h"
#include "serve/api/facade.h"
#include "serve/api/prompt.h"
#include "serve/api/sampling.h"

namespace cairn::serve {
namespace {

struct CompletionOptions {
  bool stream = false, include_usage = false;
  int logprobs = -1;                // how many alternatives; -1: not asked for
  std::vector<std::string> echoes;  // one for each choice; empty: no echo
  int choices = 1;
};

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}: four lists, which grow token by token.
struct CompletionLogprobs {
  std::string tokens, values, tops, offsets;
  size_t offset = 0;  // of the next token in the answer's text, in characters

  void add(const text::Tokenizer& tokenizer, const TokenLogprobs& logprobs, int top) {
    const char* comma = tokens.empty() ? "" : ",";
    const auto& all = logprobs.alternatives;
    const std::string piece = tokenizer.piece(logprobs.token);
    tokens += comma;
    append_json_string(tokens, piece);
    values += comma;
    tops += comma;
    tops += '{';
    double own = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const double value = std::max(double(all[i].logprob), -9999.0);
      if (all[i].token == logprobs.token) own = value;
      // As OpenAI: the drawn token is shown even when it is not among the likeliest.
      if (i >= size_t(top) && all[i].token != logprobs.token) continue;
      if (tops.back() != '{') tops += ',';
      append_json_string(tops, tokenizer.piece(all[i].token));
      tops += ':';
      append_json_number(tops, value);
    }
    tops += '}';
    append_json_number(values, own);
    fmt::format_to(std::back_inserter(offsets), "{}{}", comma, offset);
    for (const char c : piece) offset += (uint8_t(c) & 0xc0) != 0x80;
  }

  std::string json() const {
    return fmt::format(
        "{{\"tokens\":[{}],\"token_logprobs\":[{}],\"top_logprobs\":[{}],\"text_offset\":[{}]}}", tokens,
        values, tops, offsets);
  }
};

class CompletionFacade final : public ReplyFacade {
 public:
  CompletionFacade(const Serving& serving, std::shared_ptr<Reply> reply, CompletionOptions options,
                   std::string request_id)
      : ReplyFacade(std::move(reply), options.stream, ErrorShape::openai, std::move(request_id)),
        tokenizer_(serving.tokenizer),
        options_(std::move(options)),
        logprobs_(size_t(options_.choices)),
        collected_(size_t(options_.choices)) {
    head_ = stream_ ? "data: {\"id\":" : "{\"id\":";
    append_json_string(head_, make_id("cmpl-"));
    fmt::format_to(std::back_inserter(head_),
                   ",\"object\":\"text_completion\",\"created\":{},\"model\":", unix_seconds());
    append_json_string(head_, serving.options.model_name);
    head_ += ",\"system_fingerprint\":\"cairn-" CAIRN_VERSION "\",";
  }

  void started() override {
    if (stream_) start_stream();
    for (size_t i = 0; i < options_.echoes.size(); ++i) {
      if (stream_)
        chunk(int(i), options_.echoes[i], "null", nullptr);
      else
        collected_[i].content = options_.echoes[i];
      for (const char c : options_.echoes[i]) logprobs_[i].offset += (uint8_t(c) & 0xc0) != 0x80;
    }
  }

  void delta(int choice, const AnswerDelta& delta, const TokenLogprobs* logprobs) override {
    if (stream_) return chunk(choice, delta.content, "null", logprobs);
    collected_[size_t(choice)].content += delta.content;
    if (logprobs) logprobs_[size_t(choice)].add(tokenizer_, *logprobs, options_.logprobs);
  }

  void choice_ended(int choice, ChoiceEnd end) override {
    if (stream_) return chunk(choice, "", fmt::format("\"{}\"", finish_reason(end)), nullptr);
    collected_[size_t(choice)].end = std::move(end);
  }

  void all_ended(const Usage& usage) override {
    if (!stream_) {
      std::string body = head_ + "\"choices\":[";
      for (size_t i = 0; i < collected_.size(); ++i) {
        fmt::format_to(std::back_inserter(body), "{}{{\"index\":{},\"text\":", i == 0 ? "" : ",", i);
        append_json_string(body, collected_[i].content);
        fmt::format_to(std::back_inserter(body), ",\"logprobs\":{},\"finish_reason\":\"{}\"}}",
                       options_.logprobs >= 0 ? logprobs_[i].json() : "null",
                       finish_reason(collected_[i].end));
      }
      body += "],";
      append_usage(body, usage);
      body += '}';
      return respond(std::move(body));
    }
    if (options_.include_usage) {
      buffer_ = head_ + "\"choices\":[],";
      append_usage(buffer_, usage);
      buffer_ += "}\n\n";
      write(buffer_);
    }
    write("data: [DONE]\n\n");
    finish();
  }

 private:
  void chunk(int choice, std::string_view text, std::string_view finish, const TokenLogprobs* logprobs) {
    buffer_.assign(head_);
    fmt::format_to(std::back_inserter(buffer_), "\"choices\":[{{\"index\":{},\"text\":", choice);
    append_json_string(buffer_, text);
    buffer_ += ",\"logprobs\":";
    if (logprobs) {
      CompletionLogprobs one;
      one.offset = logprobs_[size_t(choice)].offset;
      one.add(tokenizer_, *logprobs, options_.logprobs);
      logprobs_[size_t(choice)].offset = one.offset;
      buffer_ += one.json();
    } else {
      buffer_ += "null";
    }
    buffer_ += ",\"finish_reason\":";
    buffer_ += finish;
    buffer_ += options_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
    write(buffer_);
  }

  const text::Tokenizer& tokenizer_;
  const CompletionOptions options_;
  std::string head_;
  std::vector<CompletionLogprobs> logprobs_;
  std::vector<CollectedChoice> collected_;
};

}  // namespace

void completions(Serving& serving, const HttpRequest& http, Json body, const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  CompletionOptions options;
  options.stream = flag(body, "stream", false);
  const Json* stream_options = member(body, "stream_options");
  if (stream_options && !options.stream)
    refuse(400, "stream_options", "invalid_value", "'stream_options' needs 'stream': true");
  options.include_usage = stream_options && flag(*stream_options, "include_usage", false);
  options.logprobs = int(whole(body, "logprobs", -1));

  engine::GenerateRequest request;
  request.id = http.id;
  request.client = client_of(http);
  read_sampling(body, serving, request);
  if (const int64_t best = whole(body, "best_of", request.sampling.n); best != request.sampling.n)
    refuse(400, "best_of", "unsupported_value",
           "'best_of' is {} and 'n' is {}; only equal numbers are supported", best, request.sampling.n);
  request.sampling.logprobs = options.logprobs >= 0 ? std::max(1, options.logprobs) : 0;
  request.max_tokens = whole(body, "max_tokens", 16);
  read_constraint(body, member(body, "response_format"), "response_format", {}, false, serving, request);

  GenerationPlan plan;
  plan.id = http.id;
  plan.path = http.path;
  plan.logprobs = options.logprobs >= 0;
  const auto prompts = read_prompts(serving, *member(body, "prompt"), "prompt");
  options.choices = int(prompts.size()) * request.sampling.n;
  if (options.choices > 1024)
    refuse(400, "n", "out_of_range", "{} prompts with n = {} make {} answers; a request may have 1024",
           prompts.size(), request.sampling.n, options.choices);
  const bool echo = flag(body, "echo", false);
  for (const auto& prompt : prompts) {
    if (echo)
      for (int i = 0; i < request.sampling.n; ++i) options.echoes.push_back(prompt.text);
    request.prompt = prompt.tokens;
    plan.prompts.push_back(request);
  }
  generate(serving, std::move(plan),
           std::make_unique<CompletionFacade>(serving, reply, std::move(options), http.id), reply);
}

}  // namespace cairn::serve
