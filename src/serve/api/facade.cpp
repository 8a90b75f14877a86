#include "serve/api/facade.h"

#include <fmt/format.h>

#include <algorithm>

namespace cairn::serve {
namespace {

void append_token(std::string& out, const text::Tokenizer& tokenizer, text::TokenId token, double logprob) {
  const std::string piece = tokenizer.piece(token);
  out += "\"token\":";
  append_json_string(out, piece);
  out += ",\"logprob\":";
  append_json_number(out, std::max(logprob, -9999.0));  // a banned token's is infinite, which JSON cannot say
  out += ",\"bytes\":[";
  for (size_t i = 0; i < piece.size(); ++i)
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", unsigned(uint8_t(piece[i])));
  out += ']';
}

}  // namespace

void CollectedChoice::add(const AnswerDelta& delta) {
  reasoning += delta.reasoning;
  content += delta.content;
  for (const auto& call : delta.tool_calls) {
    if (size_t(call.index) >= calls.size()) calls.resize(size_t(call.index) + 1);
    auto& known = calls[size_t(call.index)];
    if (!call.id.empty()) known.id = call.id;
    if (!call.name.empty()) known.name = call.name;
    known.arguments += call.arguments;
  }
}

void ReplyFacade::start_stream() {
  if (started_) return;
  started_ = true;
  reply_->start(200, "text/event-stream", {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}});
}

void ReplyFacade::respond(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  reply_->respond(std::move(response));
}

void ReplyFacade::failed(const ApiError& error) {
  if (!started_) return reply_->respond(error_response(error, shape_, request_id_));
  const std::string body = error_body(error, shape_, request_id_);
  write(shape_ == ErrorShape::anthropic ? "event: error\ndata: " + body + "\n\n" : "data: " + body + "\n\n");
  finish();
}

void append_usage(std::string& out, const Usage& usage) {
  fmt::format_to(std::back_inserter(out),
                 "\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},"
                 "\"prompt_tokens_details\":{{\"cached_tokens\":{}}},"
                 "\"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}",
                 usage.prompt_tokens, usage.answer_tokens, usage.prompt_tokens + usage.answer_tokens,
                 usage.cached_tokens, usage.reasoning_tokens);
}

std::string_view finish_reason(const ChoiceEnd& end) {
  if (end.finish == engine::Finish::length) return "length";
  return end.tool_calls > 0 ? "tool_calls" : "stop";
}

void append_token_logprobs(std::string& out, const text::Tokenizer& tokenizer, const TokenLogprobs& logprobs,
                           int top) {
  const auto& all = logprobs.alternatives;
  const auto own =
      std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.token == logprobs.token; });
  out += '{';
  append_token(out, tokenizer, logprobs.token, own == all.end() ? 0 : double(own->logprob));
  out += ",\"top_logprobs\":[";
  for (size_t i = 0; i < std::min(all.size(), size_t(top)); ++i) {
    out += i == 0 ? "{" : ",{";
    append_token(out, tokenizer, all[i].token, double(all[i].logprob));
    out += '}';
  }
  out += "]}";
}

}  // namespace cairn::serve
