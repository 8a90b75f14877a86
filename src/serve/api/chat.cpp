// POST /v1/chat/completions
#include <fmt/format.h>

#include "serve/api/chat.h"
#include "serve/api/endpoints.h"
#include "serve/api/facade.h"
#include "serve/api/prompt.h"
#include "serve/api/sampling.h"

namespace cairn::serve {
namespace {

class ChatFacade final : public ReplyFacade {
 public:
  ChatFacade(const Serving& serving, std::shared_ptr<Reply> reply, ChatOptions options,
             std::string request_id)
      : ReplyFacade(std::move(reply), options.stream, ErrorShape::openai, std::move(request_id)),
        tokenizer_(serving.tokenizer),
        options_(options) {
    std::string head = "{\"id\":";
    append_json_string(head, make_id("chatcmpl-"));
    fmt::format_to(std::back_inserter(head),
                   ",\"object\":\"chat.completion{}\",\"created\":{},\"model\":", stream_ ? ".chunk" : "",
                   unix_seconds());
    append_json_string(head, serving.options.model_name);
    head += ",\"system_fingerprint\":\"cairn-" CAIRN_VERSION "\",";
    if (options_.include_usage) chunk_usage_ = ",\"usage\":null";
    head_ = (stream_ ? "data: " : "") + head;
    if (!stream_) choices_.resize(size_t(options_.n));
  }

  void started() override {
    if (!stream_) return;
    start_stream();
    for (int i = 0; i < options_.n; ++i) {
      begin_chunk(i);
      buffer_ += "\"role\":\"assistant\",\"content\":\"\"";
      end_chunk("null");
    }
  }

  void delta(int choice, const AnswerDelta& delta, const TokenLogprobs* logprobs) override {
    if (!stream_) {
      auto& collected = choices_[size_t(choice)];
      collected.add(delta);
      if (!logprobs) return;
      if (!collected.logprobs.empty()) collected.logprobs += ',';
      append_token_logprobs(collected.logprobs, tokenizer_, *logprobs, options_.top_logprobs);
      return;
    }
    begin_chunk(choice);
    const char* comma = "";
    if (!delta.reasoning.empty()) {
      buffer_ += "\"reasoning_content\":";
      append_json_string(buffer_, delta.reasoning);
      comma = ",";
    }
    if (!delta.content.empty()) {
      buffer_ += comma;
      buffer_ += "\"content\":";
      append_json_string(buffer_, delta.content);
      comma = ",";
    }
    if (!delta.tool_calls.empty()) {
      buffer_ += comma;
      buffer_ += "\"tool_calls\":[";
      for (size_t i = 0; i < delta.tool_calls.size(); ++i) append_call(i, delta.tool_calls[i]);
      buffer_ += ']';
    }
    end_chunk("null", logprobs);
  }

  void choice_ended(int choice, ChoiceEnd end) override {
    if (!stream_) {
      choices_[size_t(choice)].end = std::move(end);
      return;
    }
    begin_chunk(choice);
    end_chunk(fmt::format("\"{}\"", finish_reason(end)));
  }

  void all_ended(const Usage& usage) override {
    if (!stream_) return respond(whole(usage));
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
  void begin_chunk(int choice) {
    buffer_.assign(head_);
    fmt::format_to(std::back_inserter(buffer_), "\"choices\":[{{\"index\":{},\"delta\":{{", choice);
  }

  void end_chunk(std::string_view finish, const TokenLogprobs* logprobs = nullptr) {
    buffer_ += "},\"logprobs\":";
    if (logprobs) {
      buffer_ += "{\"content\":[";
      append_token_logprobs(buffer_, tokenizer_, *logprobs, options_.top_logprobs);
      buffer_ += "],\"refusal\":null}";
    } else {
      buffer_ += "null";
    }
    buffer_ += ",\"finish_reason\":";
    buffer_ += finish;
    buffer_ += "}]";
    buffer_ += chunk_usage_;
    buffer_ += "}\n\n";
    write(buffer_);
  }

  void append_call(size_t i, const AnswerDelta::ToolCall& call) {
    fmt::format_to(std::back_inserter(buffer_), "{}{{\"index\":{}", i == 0 ? "" : ",", call.index);
    if (!call.id.empty()) {
      buffer_ += ",\"id\":";
      append_json_string(buffer_, call.id);
      buffer_ += ",\"type\":\"function\"";
    }
    buffer_ += ",\"function\":{";
    if (!call.name.empty()) {
      buffer_ += "\"name\":";
      append_json_string(buffer_, call.name);
      buffer_ += ',';
    }
    buffer_ += "\"arguments\":";
    append_json_string(buffer_, call.arguments);
    buffer_ += "}}";
  }

  std::string whole(const Usage& usage) const {
    std::string body = head_ + "\"choices\":[";
    for (size_t i = 0; i < choices_.size(); ++i) {
      const auto& choice = choices_[i];
      fmt::format_to(std::back_inserter(body),
                     "{}{{\"index\":{},\"message\":{{\"role\":\"assistant\",\"content\":", i == 0 ? "" : ",",
                     i);
      // As OpenAI: an answer that only calls tools has no content.
      if (choice.content.empty() && !choice.calls.empty())
        body += "null";
      else
        append_json_string(body, choice.content);
      body += ",\"refusal\":null";
      if (!choice.reasoning.empty()) {
        body += ",\"reasoning_content\":";
        append_json_string(body, choice.reasoning);
      }
      if (!choice.calls.empty()) {
        body += ",\"tool_calls\":[";
        for (size_t c = 0; c < choice.calls.size(); ++c) {
          body += c == 0 ? "{\"id\":" : ",{\"id\":";
          append_json_string(body, choice.calls[c].id);
          body += ",\"type\":\"function\",\"function\":{\"name\":";
          append_json_string(body, choice.calls[c].name);
          body += ",\"arguments\":";
          append_json_string(body, choice.calls[c].arguments);
          body += "}}";
        }
        body += ']';
      }
      body += "},\"logprobs\":";
      body += options_.logprobs ? "{\"content\":[" + choice.logprobs + "],\"refusal\":null}" : "null";
      fmt::format_to(std::back_inserter(body), ",\"finish_reason\":\"{}\"}}", finish_reason(choice.end));
    }
    body += "],";
    append_usage(body, usage);
    body += '}';
    return body;
  }

  const text::Tokenizer& tokenizer_;
  const ChatOptions options_;
  std::string head_, chunk_usage_;
  std::vector<CollectedChoice> choices_;
};

}  // namespace

std::unique_ptr<Facade> chat_facade(const Serving& serving, std::shared_ptr<Reply> reply,
                                    const ChatOptions& options, std::string request_id) {
  return std::make_unique<ChatFacade>(serving, std::move(reply), options, std::move(request_id));
}

void chat_completions(Serving& serving, const HttpRequest& http, Json body,
                      const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  ChatOptions options;
  options.stream = flag(body, "stream", false);
  const Json* stream_options = member(body, "stream_options");
  if (stream_options && !options.stream)
    refuse(400, "stream_options", "invalid_value", "'stream_options' needs 'stream': true");
  options.include_usage = stream_options && flag(*stream_options, "include_usage", false);
  options.logprobs = flag(body, "logprobs", false);
  options.top_logprobs = int(whole(body, "top_logprobs", 0));
  if (options.top_logprobs > 0 && !options.logprobs)
    refuse(400, "top_logprobs", "invalid_value", "'top_logprobs' needs 'logprobs': true");

  engine::GenerateRequest request;
  request.id = http.id;
  request.client = client_of(http);
  read_sampling(body, serving, request);
  options.n = request.sampling.n;
  request.sampling.logprobs = options.logprobs ? std::max(1, options.top_logprobs) : 0;
  request.max_tokens = whole(body, "max_completion_tokens", whole(body, "max_tokens", 0));

  ChatInput input;
  input.messages = std::move(body["messages"]);
  if (Json* tools = member(body, "tools") ? &body["tools"] : nullptr; tools && !tools->empty())
    input.tools = std::move(*tools);
  if (const Json* choice = member(body, "tool_choice")) {
    if (choice->is_string()) {
      input.tool_choice = choice->get<std::string>();
    } else {
      input.tool_choice = "named";
      input.tool_name = choice->at("function").at("name").get<std::string>();
    }
  }
  input.parallel_calls = flag(body, "parallel_tool_calls", true);
  if (const Json* given = member(body, "chat_template_kwargs")) input.template_arguments = *given;
  input.continue_last = flag(body, "continue_final_message", false);
  if (input.continue_last && flag(body, "add_generation_prompt", false))
    refuse(400, "add_generation_prompt", "invalid_value",
           "'add_generation_prompt' begins an answer and 'continue_final_message' goes on with one: choose");
  if (input.continue_last && input.messages.back().at("role") != "assistant")
    refuse(400, "continue_final_message", "invalid_value",
           "'continue_final_message' needs an assistant's message at the end");
  if (!input.continue_last && !flag(body, "add_generation_prompt", true))
    refuse(400, "add_generation_prompt", "unsupported_value",
           "'add_generation_prompt' is false: an answer is always begun, unless 'continue_final_message' is "
           "true");
  if (const Json* effort = member(body, "reasoning_effort"))
    input.template_arguments["reasoning_effort"] = *effort;

  GenerationPlan plan;
  plan.id = http.id;
  plan.path = http.path;
  plan.logprobs = options.logprobs;
  prepare_chat(serving, std::move(input), body, member(body, "response_format"), "response_format", request,
               plan);
  plan.prompts.push_back(std::move(request));
  generate(serving, std::move(plan), chat_facade(serving, reply, options, http.id), reply);
}

}  // namespace cairn::serve
