// What the façades that write to HTTP have in common: bodies collected for one answer, events for a stream.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api/generation.h"

namespace cairn::serve {

// One choice of an answer that is sent whole.
struct CollectedChoice {
  std::string reasoning, content;
  struct Call {
    std::string id, name, arguments;
  };
  std::vector<Call> calls;
  std::string logprobs;  // JSON of its dialect, joined by commas
  ChoiceEnd end;

  void add(const AnswerDelta&);
};

class ReplyFacade : public Facade {
 public:
  ReplyFacade(std::shared_ptr<Reply> reply, bool stream, ErrorShape shape, std::string request_id)
      : reply_(std::move(reply)), stream_(stream), shape_(shape), request_id_(std::move(request_id)) {}

  void failed(const ApiError&) override;  // a status, or within a stream an event

 protected:
  void start_stream();
  void respond(std::string body);
  // Events of a stream. data: without an event's name, as OpenAI's chat and completions have them.
  void write(std::string_view event) { reply_->write(event, computed); }
  void finish() { reply_->finish(); }

  const std::shared_ptr<Reply> reply_;
  const bool stream_;
  const ErrorShape shape_;
  const std::string request_id_;
  std::string buffer_;  // of the event being written; keeps its capacity

 private:
  bool started_ = false;
};

// "usage": {...} as chat and completions have it.
void append_usage(std::string& out, const Usage&);

// OpenAI's name for how an answer ended.
std::string_view finish_reason(const ChoiceEnd&);

// One token as chat/completions and responses show it: {"token", "logprob", "bytes", "top_logprobs": [top of
// them]}.
void append_token_logprobs(std::string& out, const text::Tokenizer&, const TokenLogprobs&, int top);

}  // namespace cairn::serve
