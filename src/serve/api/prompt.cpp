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

}  // namespace cairn::serve
