#include "serve/api/prompt.h"

#include <algorithm>

#include "formats/untrusted_text.h"
#include "serve/api/api_error.h"
#include "serve/api/constraint.h"

namespace cairn::serve {
namespace {

// Arguments are JSON within JSON: what its escapes spell shows only when it is read.
void parse_arguments(Json& message, size_t index) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (size_t i = 0; i < calls->size(); ++i) {
    auto& call = (*calls)[i];
    call["type"] = "function";
    auto& function = call["function"];
    const Json* arguments = member(function, "arguments");
    const auto text = arguments ? arguments->get<std::string>() : std::string();
    Json parsed = Json::object();
    if (text.find_first_not_of(" \t\r\n") != std::string::npos) {
      const auto place = fmt::format("messages[{}].tool_calls[{}].function.arguments", index, i);
      try {
        parsed = parse_body(text);
      } catch (const ApiError&) {
        refuse(400, place, "invalid_value", "'{}' is not a JSON object", place);
      }
      if (!parsed.is_object()) refuse(400, place, "invalid_value", "'{}' is not a JSON object", place);
    }
    function["arguments"] = std::move(parsed);
  }
}

}  // namespace

ChatPrompt render_chat(const Serving& serving, const ChatInput& input) {
  if (!serving.chats)
    refuse(400, "messages", "unsupported_value",
           "this model came without a template for chats; use /v1/completions with a prompt of your own");
  text::ChatPrompts::Request request;
  request.messages = input.messages;
  if (input.tool_choice != "none") request.tools = input.tools;
  request.variables = input.template_arguments;
  request.continue_last = input.continue_last;
  UserText user(serving.special);
  for (size_t i = 0; i < request.messages.size(); ++i) {
    parse_arguments(request.messages[i], i);
    // Roles are ours: the schema allows no others, and templates compare them.
    for (auto& [name, value] : request.messages[i].items())
      if (name != "role") user.hide(value);
  }
  user.hide(request.tools);
  for (auto& value : request.variables) user.hide(value);

  ChatPrompt prompt;
  try {
    const auto rendered = user.reveal(serving.chats->render(request));
    // The template writes its own special tokens, <s> included.
    prompt.tokens = serving.tokenizer.encode(rendered.text, {.add_special = false, .plain = rendered.user});
    prompt.tail = rendered.text.substr(rendered.text.size() - std::min<size_t>(rendered.text.size(), 1024));
  } catch (const Error& error) {
    // The template's own message, which may quote what the request said in hidden characters.
    if (error.kind() == ErrorKind::invalid_argument || error.kind() == ErrorKind::unsupported)
      throw ApiError(400, "messages", "invalid_value", user.reveal(error.what()).text);
    throw;
  }
  if (prompt.tokens.empty())
    refuse(400, "messages", "invalid_value",
           "the messages give an empty prompt; write at least one character");
  return prompt;
}

void prepare_chat(const Serving& serving, ChatInput input, const Json& body, const Json* format,
                  const std::string& format_place, engine::GenerateRequest& request, GenerationPlan& plan) {
  if (const Json* effort = member(input.template_arguments, "reasoning_effort");
      effort && *effort == "none" && !input.template_arguments.contains("enable_thinking"))
    input.template_arguments["enable_thinking"] = false;
  const bool tools = input.tool_choice != "none" && input.tools.is_array() && !input.tools.empty();
  if (!tools && (input.tool_choice == "required" || input.tool_choice == "named"))
    refuse(400, "tool_choice", "invalid_value", "'tool_choice' asks for a call, and there are no 'tools'");
  if (input.tool_choice == "named") {
    const auto named = [&](const Json& tool) { return tool.at("function").at("name") == input.tool_name; };
    if (std::none_of(input.tools.begin(), input.tools.end(), named))
      refuse(400, "tool_choice", "invalid_value", "'tool_choice' names '{}', which 'tools' has not",
             formats::shown(input.tool_name, 100));
  }
  if (tools && !serving.format.parses_tools())
    refuse(400, "tools", "unsupported_value",
           "'tools' cannot be used: this model's template has no form of tool calls that the server knows");
  auto prompt = render_chat(serving, input);
  request.prompt = std::move(prompt.tokens);
  const auto visible = serving.format.visible_special();
  request.visible_special.assign(visible.begin(), visible.end());
  plan.parse = tools || serving.format.parses_reasoning();
  plan.parse_tools = tools;
  plan.prompt_tail = std::move(prompt.tail);
  const bool in_reasoning =
      plan.parse && text::AnswerParser(serving.format, plan.prompt_tail, nullptr, true, false).in_reasoning();
  ToolConstraint calls;
  if (tools) calls = {&input.tools, input.tool_choice == "required", input.tool_name, input.parallel_calls};
  read_constraint(body, format, format_place, calls, in_reasoning, serving, request);
  if (tools) plan.tools = std::move(input.tools);
  if (input.continue_last) plan.beginning = text_of(input.messages.back(), "content");
}

text::TokenId checked_token(const Serving& serving, const Json& id, const std::string& place) {
  const double value = id.get<double>();  // the schema has made sure that it is whole
  const int64_t size = serving.service.engine().model().vocabulary_size;
  if (value < 0 || value >= double(size))
    refuse(400, place, "out_of_range", "'{}' holds the token id {}; this model has 0 to {}", place, dump(id),
           size - 1);
  return text::TokenId(value);
}

std::vector<RawPrompt> read_prompts(const Serving& serving, const Json& prompt, const std::string& field) {
  std::vector<RawPrompt> prompts;
  const auto add_text = [&](const Json& text, const std::string& place) {
    RawPrompt raw;
    raw.text = text.get<std::string>();
    raw.tokens = serving.tokenizer.encode(raw.text);
    // Only what the tokenizer adds by itself is not a prompt.
    if (raw.text.empty() || raw.tokens.empty())
      refuse(400, place, "invalid_value", "'{}' is empty; give it at least one token", place);
    prompts.push_back(std::move(raw));
  };
  const auto add_tokens = [&](const Json& ids, const std::string& place) {
    if (ids.empty()) refuse(400, place, "invalid_value", "'{}' is empty; give it at least one token", place);
    RawPrompt raw;
    for (const auto& id : ids) raw.tokens.push_back(checked_token(serving, id, place));
    raw.text = serving.tokenizer.decode(raw.tokens, false);
    prompts.push_back(std::move(raw));
  };
  if (prompt.is_string()) {
    add_text(prompt, field);
  } else if (prompt.empty() || prompt[0].is_number()) {
    add_tokens(prompt, field);
  } else {
    for (size_t i = 0; i < prompt.size(); ++i) {
      const auto place = fmt::format("{}[{}]", field, i);
      prompt[i].is_string() ? add_text(prompt[i], place) : add_tokens(prompt[i], place);
    }
  }
  return prompts;
}

}  // namespace cairn::serve
