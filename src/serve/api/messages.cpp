// POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect.
#include <fmt/format.h>

#include "serve/api/block_facade.h"
#include "serve/api/endpoints.h"
#include "serve/api/prompt.h"
#include "serve/api/sampling.h"

namespace cairn::serve {
namespace {

std::string joined_text(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  for (const auto& block : content) text += block.at("text").get_ref<const std::string&>();
  return text;
}

// A user's blocks: results of tools become messages of their own, which come first.
void add_user(const Json& content, Json& messages) {
  if (content.is_string()) {
    messages.push_back({{"role", "user"}, {"content", content}});
    return;
  }
  std::string text;
  bool has_text = false;
  for (const auto& block : content) {
    if (block.at("type") == "text") {
      text += block.at("text").get_ref<const std::string&>();
      has_text = true;
    } else {
      const Json* result = member(block, "content");
      messages.push_back({{"role", "tool"},
                          {"tool_call_id", block.at("tool_use_id")},
                          {"content", result ? joined_text(*result) : std::string()}});
    }
  }
  if (has_text) messages.push_back({{"role", "user"}, {"content", text}});
}

void add_assistant(const Json& content, Json& messages) {
  Json message = {{"role", "assistant"}, {"content", ""}};
  if (content.is_string()) {
    message["content"] = content;
  } else {
    std::string text, reasoning;
    Json calls = Json::array();
    for (const auto& block : content) {
      const auto& type = block.at("type").get_ref<const std::string&>();
      if (type == "text") text += block.at("text").get_ref<const std::string&>();
      if (type == "thinking") reasoning += block.at("thinking").get_ref<const std::string&>();
      if (type == "tool_use")
        calls.push_back({{"id", block.at("id")},
                         {"type", "function"},
                         {"function", {{"name", block.at("name")}, {"arguments", dump(block.at("input"))}}}});
    }
    message["content"] = text;
    if (!reasoning.empty()) message["reasoning_content"] = reasoning;
    if (!calls.empty()) message["tool_calls"] = std::move(calls);
  }
  messages.push_back(std::move(message));
}

// As /v1/chat/completions has them.
ChatInput chat_input(const Json& body) {
  ChatInput input;
  input.messages = Json::array();
  if (const Json* system = member(body, "system"))
    if (auto text = joined_text(*system); !text.empty())
      input.messages.push_back({{"role", "system"}, {"content", text}});
  const auto& messages = body.at("messages");
  for (const auto& message : messages)
    if (message.at("role") == "user")
      add_user(message.at("content"), input.messages);
    else
      add_assistant(message.at("content"), input.messages);
  // As Anthropic: the answer goes on with what it has been given to begin with.
  input.continue_last = messages.back().at("role") == "assistant";
  if (const Json* tools = member(body, "tools"); tools && !tools->empty()) {
    input.tools = Json::array();
    for (const auto& tool : *tools) {
      Json function = {{"name", tool.at("name")}};
      if (const Json* description = member(tool, "description")) function["description"] = *description;
      function["parameters"] = tool.at("input_schema");
      input.tools.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
  }
  if (const Json* choice = member(body, "tool_choice")) {
    const auto& type = choice->at("type").get_ref<const std::string&>();
    input.tool_choice = type == "any" ? "required" : type == "tool" ? "named" : type;
    if (type == "tool") input.tool_name = text_of(*choice, "name");
    input.parallel_calls = !flag(*choice, "disable_parallel_tool_use", false);
  }
  if (const Json* given = member(body, "chat_template_kwargs")) input.template_arguments = *given;
  if (const Json* thinking = member(body, "thinking")) {
    const bool on = thinking->at("type") != "disabled";
    input.template_arguments["enable_thinking"] = on;
    input.template_arguments["thinking"] = on;
  }
  return input;
}

class MessageFacade final : public BlockFacade {
 public:
  MessageFacade(const Serving& serving, std::shared_ptr<Reply> reply, bool stream, int64_t prompt_tokens,
                std::string request_id)
      : BlockFacade(std::move(reply), stream, ErrorShape::anthropic, std::move(request_id)),
        id_(make_id("msg_")),
        model_(serving.options.model_name),
        prompt_tokens_(prompt_tokens) {}

  void started() override {
    if (!stream_) return;
    start_stream();
    buffer_ = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":";
    append_message("[]", "null", {prompt_tokens_, 0, 0, 0});
    buffer_ += "}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n";
    write(buffer_);
  }

  void all_ended(const Usage& usage) override {
    if (stream_) {
      buffer_ = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{";
      append_stop();
      buffer_ += "},";
      append_message_usage(usage);
      buffer_ += "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
      write(buffer_);
      return finish();
    }
    std::string content = "[";
    for (const auto& block : blocks_) {
      if (content.size() > 1) content += ',';
      append_block(content, block, true);
    }
    content += ']';
    buffer_.clear();
    append_message(content, "", usage);
    respond(buffer_);
  }

 private:
  void opened(const Block& block) override {
    buffer_ = "event: content_block_start\ndata: {\"type\":\"content_block_start\"";
    fmt::format_to(std::back_inserter(buffer_), ",\"index\":{},\"content_block\":", last());
    append_block(buffer_, block, false);
    buffer_ += "}\n\n";
    write(buffer_);
  }

  void grew(const Block& block, std::string_view text, std::string_view) override {
    buffer_ = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"";
    fmt::format_to(std::back_inserter(buffer_), ",\"index\":{},\"delta\":{{", last());
    switch (block.kind) {
      case Block::Kind::reasoning: buffer_ += "\"type\":\"thinking_delta\",\"thinking\":"; break;
      case Block::Kind::text: buffer_ += "\"type\":\"text_delta\",\"text\":"; break;
      case Block::Kind::call: buffer_ += "\"type\":\"input_json_delta\",\"partial_json\":"; break;
    }
    append_json_string(buffer_, text);
    buffer_ += "}}\n\n";
    write(buffer_);
  }

  void closed(const Block&) override {
    buffer_ = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\"";
    fmt::format_to(std::back_inserter(buffer_), ",\"index\":{}}}\n\n", last());
    write(buffer_);
  }

  static void append_block(std::string& out, const Block& block, bool whole) {
    switch (block.kind) {
      case Block::Kind::reasoning:
        out += "{\"type\":\"thinking\",\"thinking\":";
        append_json_string(out, whole ? block.text : "");
        out += ",\"signature\":\"\"}";
        break;
      case Block::Kind::text:
        out += "{\"type\":\"text\",\"text\":";
        append_json_string(out, whole ? block.text : "");
        out += '}';
        break;
      case Block::Kind::call:
        out += "{\"type\":\"tool_use\",\"id\":";
        append_json_string(out, block.call_id);
        out += ",\"name\":";
        append_json_string(out, block.name);
        // An object here, not text: a call that was cut short has none to show.
        const bool complete = whole && Json::accept(block.text);
        out += ",\"input\":" + (complete ? block.text : "{}") + "}";
        break;
    }
  }

  void append_stop() {
    const bool stopped = end_.finish == engine::Finish::stop_string;
    buffer_ += "\"stop_reason\":\"";
    buffer_ += end_.finish == engine::Finish::length ? "max_tokens"
               : stopped                             ? "stop_sequence"
               : end_.tool_calls > 0                 ? "tool_use"
                                                     : "end_turn";
    buffer_ += "\",\"stop_sequence\":";
    if (stopped && !end_.stop.empty())
      append_json_string(buffer_, end_.stop);
    else
      buffer_ += "null";
  }

  // Their input_tokens leave out what the cache had.
  void append_message_usage(const Usage& usage) {
    fmt::format_to(std::back_inserter(buffer_),
                   "\"usage\":{{\"input_tokens\":{},\"cache_creation_input_tokens\":0,"
                   "\"cache_read_input_tokens\":{},\"output_tokens\":{}}}",
                   usage.prompt_tokens - usage.cached_tokens, usage.cached_tokens, usage.answer_tokens);
  }

  void append_message(std::string_view content, std::string_view stop, const Usage& usage) {
    buffer_ += "{\"id\":\"" + id_ + "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":";
    append_json_string(buffer_, model_);
    buffer_ += ",\"content\":";
    buffer_ += content;
    buffer_ += ',';
    if (stop.empty())
      append_stop();
    else
      buffer_ += "\"stop_reason\":null,\"stop_sequence\":null";
    buffer_ += ',';
    append_message_usage(usage);
    buffer_ += '}';
  }

  const std::string id_, model_;
  const int64_t prompt_tokens_;
};

}  // namespace

void messages(Serving& serving, const HttpRequest& http, Json body, const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  const bool stream = flag(body, "stream", false);
  engine::GenerateRequest request;
  request.id = http.id;
  request.client = client_of(http);
  read_sampling(body, serving, request);
  request.sampling.n = 1;
  request.sampling.stop = read_stop(member(body, "stop_sequences"));
  request.max_tokens = whole(body, "max_tokens", 0);

  GenerationPlan plan;
  plan.id = http.id;
  plan.path = http.path;
  plan.name_stop = true;
  prepare_chat(serving, chat_input(body), body, nullptr, "", request, plan);
  if (const Json* thinking = member(body, "thinking"); thinking && member(*thinking, "budget_tokens"))
    request.reasoning = {whole(*thinking, "budget_tokens", 0), serving.format, plan.prompt_tail};
  const auto prompt_tokens = int64_t(request.prompt.size());
  plan.prompts.push_back(std::move(request));
  generate(serving, std::move(plan),
           std::make_unique<MessageFacade>(serving, reply, stream, prompt_tokens, http.id), reply);
}

void count_message_tokens(Serving& serving, const HttpRequest& http, Json body,
                          const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  engine::GenerateRequest request;
  GenerationPlan plan;
  plan.id = http.id;
  prepare_chat(serving, chat_input(body), body, nullptr, "", request, plan);
  HttpResponse response;
  response.body = fmt::format("{{\"input_tokens\":{}}}", request.prompt.size());
  reply->respond(std::move(response));
}

}  // namespace cairn::serve
