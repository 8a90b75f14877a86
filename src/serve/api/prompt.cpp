#include "serve/api/prompt.h"

#include "serve/api/api_error.h"

namespace cairn::serve {
namespace {

// Parts become one text, which every template understands.
void join_parts(Json& message) {
  const auto content = message.find("content");
  if (content == message.end() || !content->is_array()) return;
  std::string text;
  for (const auto& part : *content) text += part.at("text").get_ref<const std::string&>();
  *content = std::move(text);
}

// Templates iterate over a call's arguments; the API has them as text.
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

ChatPrompt render_chat(const Serving& serving, Json messages, Json tools, const Json& arguments) {
  if (!serving.chat_template)
    refuse(400, "messages", "unsupported_value",
           "this model came without a chat template; use /v1/completions with a prompt of your own");
  for (size_t i = 0; i < messages.size(); ++i) {
    auto& message = messages[i];
    join_parts(message);
    parse_arguments(message, i);
    if (message["role"] == "developer") message["role"] = "system";
  }
  UserText user(serving.special);
  // Roles are ours: the schema allows no others, and templates compare them.
  for (auto& message : messages)
    for (auto& [name, value] : message.items())
      if (name != "role") user.hide(value);
  user.hide(tools);

  Json variables = arguments.is_object() ? arguments : Json::object();
  for (auto& value : variables) user.hide(value);
  variables["messages"] = std::move(messages);
  // As transformers passes what the caller did not give; templates ask whether `tools is not none`.
  variables["tools"] = std::move(tools);
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = true;
  const auto token_text = [&](const std::optional<text::TokenId>& id) {
    return id ? serving.tokenizer.piece(*id) : std::string();
  };
  variables["bos_token"] = token_text(serving.tokenizer.special().bos);
  variables["eos_token"] = token_text(serving.tokenizer.special().eos);

  ChatPrompt prompt;
  try {
    const auto rendered = user.reveal(serving.chat_template->render(variables));
    // The template writes its own special tokens, <s> included.
    prompt.tokens = serving.tokenizer.encode(rendered.text, {.add_special = false, .plain = rendered.user});
    prompt.tail = rendered.text.substr(rendered.text.size() - std::min<size_t>(rendered.text.size(), 512));
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

void prepare_chat(const Serving& serving, ChatInput input, engine::GenerateRequest& request,
                  GenerationPlan& plan) {
  (void)plan;
  if (input.tool_choice == "none") input.tools = nullptr;
  auto prompt =
      render_chat(serving, std::move(input.messages), std::move(input.tools), input.template_arguments);
  request.prompt = std::move(prompt.tokens);
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
