// POST /v1/responses: OpenAI's newer dialect, without a store.
#include <fmt/format.h>

#include <algorithm>

#include "serve/api/block_facade.h"
#include "serve/api/endpoints.h"
#include "serve/api/prompt.h"
#include "serve/api/sampling.h"

namespace cairn::serve {
namespace {

std::string joined_text(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  for (const auto& part : content)
    text +=
        part.contains("refusal") ? part["refusal"].get<std::string>() : part.at("text").get<std::string>();
  return text;
}

// Reasoning, text and calls of one turn are items of their own here and one message in a template.
Json& assistant_turn(Json& messages) {
  if (messages.empty() || messages.back().at("role") != "assistant")
    messages.push_back({{"role", "assistant"}, {"content", ""}});
  return messages.back();
}

void add_item(const Json& item, Json& messages) {
  const auto type = text_of(item, "type");
  if (type == "function_call") {
    auto& turn = assistant_turn(messages);
    if (!turn.contains("tool_calls")) turn["tool_calls"] = Json::array();
    turn["tool_calls"].push_back(
        {{"id", item.at("call_id")},
         {"type", "function"},
         {"function", {{"name", item.at("name")}, {"arguments", item.at("arguments")}}}});
  } else if (type == "function_call_output") {
    messages.push_back({{"role", "tool"},
                        {"tool_call_id", item.at("call_id")},
                        {"content", joined_text(item.at("output"))}});
  } else if (type == "reasoning") {
    std::string text;
    if (const Json* content = member(item, "content")) text = joined_text(*content);
    if (text.empty()) return;
    messages.push_back({{"role", "assistant"}, {"content", ""}, {"reasoning_content", text}});
  } else {
    const auto text = joined_text(item.at("content"));
    const auto& role = item.at("role").get_ref<const std::string&>();
    const bool continues = role == "assistant" && !messages.empty() &&
                           messages.back().at("role") == "assistant" && messages.back().at("content") == "" &&
                           !messages.back().contains("tool_calls");
    if (continues)
      messages.back()["content"] = text;
    else
      messages.push_back({{"role", role}, {"content", text}});
  }
}

ChatInput chat_input(const Json& body) {
  ChatInput input;
  input.messages = Json::array();
  if (const Json* instructions = member(body, "instructions"))
    input.messages.push_back({{"role", "system"}, {"content", *instructions}});
  const Json& given = body.at("input");
  if (given.is_string())
    input.messages.push_back({{"role", "user"}, {"content", given}});
  else
    for (const auto& item : given) add_item(item, input.messages);
  if (input.messages.empty()) refuse(400, "input", "invalid_value", "'input' holds nothing to answer");
  if (const Json* tools = member(body, "tools"); tools && !tools->empty()) {
    input.tools = Json::array();
    for (const auto& tool : *tools) {
      Json function = Json::object();
      for (const char* name : {"name", "description", "parameters", "strict"})
        if (const Json* value = member(tool, name)) function[name] = *value;
      input.tools.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
  }
  if (const Json* choice = member(body, "tool_choice")) {
    if (choice->is_string()) {
      input.tool_choice = choice->get<std::string>();
    } else {
      input.tool_choice = "named";
      input.tool_name = choice->at("name").get<std::string>();
    }
  }
  input.parallel_calls = flag(body, "parallel_tool_calls", true);
  if (const Json* arguments = member(body, "chat_template_kwargs")) input.template_arguments = *arguments;
  if (const Json* reasoning = member(body, "reasoning"))
    if (const Json* effort = member(*reasoning, "effort"))
      input.template_arguments["reasoning_effort"] = *effort;
  return input;
}

class ResponseFacade final : public BlockFacade {
 public:
  // echoed: the members of the response that repeat the request.
  ResponseFacade(const Serving& serving, std::shared_ptr<Reply> reply, bool stream, int top_logprobs,
                 Json echoed, std::string request_id)
      : BlockFacade(std::move(reply), stream, ErrorShape::openai, std::move(request_id)),
        tokenizer_(serving.tokenizer),
        id_(make_id("resp_")),
        model_(serving.options.model_name),
        created_(unix_seconds()),
        top_(top_logprobs),
        echoed_(std::move(echoed)) {}

  void started() override {
    if (!stream_) return;
    start_stream();
    for (const char* name : {"response.created", "response.in_progress"}) {
      begin(name);
      buffer_ += "\"response\":";
      append_response("in_progress", nullptr);
      end_event();
    }
  }

  void all_ended(const Usage& usage) override {
    const bool cut = end_.finish == engine::Finish::length;
    const char* status = cut ? "incomplete" : "completed";
    if (!stream_) {
      buffer_.clear();
      append_response(status, &usage);
      return respond(buffer_);
    }
    begin(cut ? "response.incomplete" : "response.completed");
    buffer_ += "\"response\":";
    append_response(status, &usage);
    end_event();
    finish();
  }

  void failed(const ApiError& error) override {
    if (!stream_ || sequence_ == 0) return ReplyFacade::failed(error);
    begin("error");
    buffer_ += "\"code\":";
    append_json_string(buffer_, error.code);
    buffer_ += ",\"message\":";
    append_json_string(buffer_, error.message);
    buffer_ += ",\"param\":null";
    end_event();
    finish();
  }

 private:
  void begin(std::string_view type) {
    buffer_ = "event: ";
    buffer_ += type;
    buffer_ += "\ndata: {\"type\":\"";
    buffer_ += type;
    fmt::format_to(std::back_inserter(buffer_), "\",\"sequence_number\":{},", sequence_++);
  }
  void begin(std::string_view type, const Block& block) {
    begin(type);
    fmt::format_to(std::back_inserter(buffer_), "\"item_id\":\"{}\",\"output_index\":{},", block.id, last());
  }
  void end_event() {
    buffer_ += "}\n\n";
    write(buffer_);
  }

  void name_block(Block& block) override {
    block.id = make_id(block.kind == Block::Kind::reasoning ? "rs_"
                       : block.kind == Block::Kind::text    ? "msg_"
                                                            : "fc_");
  }

  std::string logprobs_json(const TokenLogprobs& token) override {
    std::string out;
    append_token_logprobs(out, tokenizer_, token, top_);
    return out;
  }

  void opened(const Block& block) override {
    item_event("response.output_item.added", block, false);
    if (block.kind == Block::Kind::call) return;
    part_event("response.content_part.added", block, false);
  }

  void grew(const Block& block, std::string_view text, std::string_view logprobs) override {
    switch (block.kind) {
      case Block::Kind::reasoning: begin("response.reasoning_text.delta", block); break;
      case Block::Kind::text: begin("response.output_text.delta", block); break;
      case Block::Kind::call: begin("response.function_call_arguments.delta", block); break;
    }
    if (block.kind != Block::Kind::call) buffer_ += "\"content_index\":0,";
    buffer_ += "\"delta\":";
    append_json_string(buffer_, text);
    if (block.kind == Block::Kind::text) {
      buffer_ += ",\"logprobs\":[";
      buffer_ += logprobs;
      buffer_ += ']';
    }
    end_event();
  }

  void closed(const Block& block) override {
    switch (block.kind) {
      case Block::Kind::reasoning: begin("response.reasoning_text.done", block); break;
      case Block::Kind::text: begin("response.output_text.done", block); break;
      case Block::Kind::call: begin("response.function_call_arguments.done", block); break;
    }
    if (block.kind == Block::Kind::call) {
      buffer_ += "\"name\":";
      append_json_string(buffer_, block.name);
      buffer_ += ",\"arguments\":";
    } else {
      buffer_ += "\"content_index\":0,\"text\":";
    }
    append_json_string(buffer_, block.text);
    if (block.kind == Block::Kind::text) buffer_ += ",\"logprobs\":[" + block.logprobs + "]";
    end_event();
    if (block.kind != Block::Kind::call) part_event("response.content_part.done", block, true);
    item_event("response.output_item.done", block, true);
  }

  void item_event(std::string_view type, const Block& block, bool whole) {
    begin(type);
    fmt::format_to(std::back_inserter(buffer_), "\"output_index\":{},\"item\":", last());
    append_item(buffer_, block, whole);
    end_event();
  }

  void part_event(std::string_view type, const Block& block, bool whole) {
    begin(type, block);
    buffer_ += "\"content_index\":0,\"part\":";
    append_part(buffer_, block, whole);
    end_event();
  }

  static void append_part(std::string& out, const Block& block, bool whole) {
    const bool reasoning = block.kind == Block::Kind::reasoning;
    out += reasoning ? "{\"type\":\"reasoning_text\",\"text\":" : "{\"type\":\"output_text\",\"text\":";
    append_json_string(out, whole ? block.text : "");
    if (!reasoning) out += ",\"annotations\":[],\"logprobs\":[" + (whole ? block.logprobs : "") + "]";
    out += '}';
  }

  static void append_item(std::string& out, const Block& block, bool whole) {
    const char* status = whole ? "completed" : "in_progress";
    out += "{\"id\":\"" + block.id + "\",";
    switch (block.kind) {
      case Block::Kind::reasoning:
        fmt::format_to(std::back_inserter(out),
                       "\"type\":\"reasoning\",\"status\":\"{}\",\"summary\":[],\"content\":[", status);
        if (whole) append_part(out, block, true);
        out += "]}";
        break;
      case Block::Kind::text:
        fmt::format_to(std::back_inserter(out),
                       "\"type\":\"message\",\"status\":\"{}\",\"role\":\"assistant\",\"content\":[", status);
        if (whole) append_part(out, block, true);
        out += "]}";
        break;
      case Block::Kind::call:
        fmt::format_to(std::back_inserter(out),
                       "\"type\":\"function_call\",\"status\":\"{}\",\"call_id\":", status);
        append_json_string(out, block.call_id);
        out += ",\"name\":";
        append_json_string(out, block.name);
        out += ",\"arguments\":";
        append_json_string(out, whole ? block.text : "");
        out += '}';
        break;
    }
  }

  void append_response(std::string_view status, const Usage* usage) {
    fmt::format_to(
        std::back_inserter(buffer_),
        "{{\"id\":\"{}\",\"object\":\"response\",\"created_at\":{},\"status\":\"{}\",\"error\":null,"
        "\"incomplete_details\":{},\"model\":",
        id_, created_, status, status == "incomplete" ? "{\"reason\":\"max_output_tokens\"}" : "null");
    append_json_string(buffer_, model_);
    buffer_ += ",\"output\":[";
    if (usage)
      for (size_t i = 0; i < blocks_.size(); ++i) {
        if (i > 0) buffer_ += ',';
        append_item(buffer_, blocks_[i], true);
      }
    buffer_ += "],\"usage\":";
    if (usage)
      fmt::format_to(
          std::back_inserter(buffer_),
          "{{\"input_tokens\":{},\"input_tokens_details\":{{\"cached_tokens\":{}}},\"output_tokens\":{},"
          "\"output_tokens_details\":{{\"reasoning_tokens\":{}}},\"total_tokens\":{}}}",
          usage->prompt_tokens, usage->cached_tokens, usage->answer_tokens, usage->reasoning_tokens,
          usage->prompt_tokens + usage->answer_tokens);
    else
      buffer_ += "null";
    for (const auto& [name, value] : echoed_.items()) {
      buffer_ += ',';
      append_json_string(buffer_, name);
      buffer_ += ':' + dump(value);
    }
    buffer_ += '}';
  }

  const text::Tokenizer& tokenizer_;
  const std::string id_, model_;
  const int64_t created_;
  const int top_;
  const Json echoed_;
  int64_t sequence_ = 0;
};

}  // namespace

void responses(Serving& serving, const HttpRequest& http, Json body, const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  const bool stream = flag(body, "stream", false);
  const int top = int(whole(body, "top_logprobs", 0));
  bool logprobs = top > 0;
  if (const Json* include = member(body, "include"))
    logprobs = logprobs ||
               std::find(include->begin(), include->end(), "message.output_text.logprobs") != include->end();

  engine::GenerateRequest request;
  request.id = http.id;
  request.client = client_of(http);
  read_sampling(body, serving, request);
  request.sampling.n = 1;
  request.sampling.logprobs = logprobs ? std::max(1, top) : 0;
  request.max_tokens = whole(body, "max_output_tokens", 0);

  GenerationPlan plan;
  plan.id = http.id;
  plan.path = http.path;
  plan.logprobs = logprobs;
  const Json* text = member(body, "text");
  prepare_chat(serving, chat_input(body), body, text ? member(*text, "format") : nullptr, "text.format",
               request, plan);

  Json echoed = Json::object();
  const auto echo = [&](const char* name, Json otherwise) {
    const Json* given = member(body, name);
    echoed[name] = given ? *given : std::move(otherwise);
  };
  echo("instructions", nullptr);
  echo("max_output_tokens", nullptr);
  echo("metadata", Json::object());
  echo("parallel_tool_calls", true);
  echoed["previous_response_id"] = nullptr;
  echo("reasoning", {{"effort", nullptr}, {"summary", nullptr}});
  echoed["store"] = false;
  echoed["temperature"] = request.sampling.temperature;
  echo("text", {{"format", {{"type", "text"}}}});
  echo("tool_choice", "auto");
  echo("tools", Json::array());
  echoed["top_logprobs"] = top;
  echoed["top_p"] = request.sampling.top_p;
  echoed["truncation"] = "disabled";
  echoed["background"] = false;
  echo("user", nullptr);

  plan.prompts.push_back(std::move(request));
  generate(serving, std::move(plan),
           std::make_unique<ResponseFacade>(serving, reply, stream, top, std::move(echoed), http.id), reply);
}

}  // namespace cairn::serve
