// POST /tokenize and /detokenize
#include <fmt/format.h>

#include "serve/api/api_error.h"
#include "serve/api/endpoints.h"
#include "serve/api/prompt.h"

namespace cairn::serve {

void tokenize(Serving& serving, const HttpRequest&, Json body, const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  const Json* messages = member(body, "messages");
  const Json* prompt = member(body, "prompt") ? member(body, "prompt") : member(body, "content");
  if (bool(messages) == bool(prompt))
    refuse(400, "prompt", "invalid_value",
           "give either 'prompt' (or its older name 'content') or 'messages'");
  std::vector<text::TokenId> tokens;
  if (messages) {
    ChatInput input;
    input.messages = *messages;
    if (const Json* tools = member(body, "tools")) input.tools = *tools;
    if (const Json* arguments = member(body, "chat_template_kwargs")) input.template_arguments = *arguments;
    tokens = render_chat(serving, input).tokens;
  } else {
    tokens = serving.tokenizer.encode(
        prompt->get_ref<const std::string&>(),
        {.add_special = flag(body, "add_special_tokens", flag(body, "add_special", true)),
         .parse_special = flag(body, "parse_special", true)});
  }
  std::string out = fmt::format("{{\"count\":{},\"max_model_len\":{},\"tokens\":[", tokens.size(),
                                serving.service.engine().context());
  for (size_t i = 0; i < tokens.size(); ++i)
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", tokens[i]);
  out += ']';
  if (flag(body, "return_token_strs", flag(body, "with_pieces", false))) {
    out += ",\"token_strs\":[";
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ',';
      append_json_string(out, serving.tokenizer.piece(tokens[i]));
    }
    out += ']';
  }
  out += '}';
  HttpResponse response;
  response.body = std::move(out);
  reply->respond(std::move(response));
}

void detokenize(Serving& serving, const HttpRequest&, Json body, const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  std::vector<text::TokenId> tokens;
  for (const auto& id : body.at("tokens")) tokens.push_back(checked_token(serving, id, "tokens"));
  std::string text = serving.tokenizer.decode(tokens, flag(body, "skip_special_tokens", false));
  HttpResponse response;
  response.body = "{\"prompt\":";
  append_json_string(response.body, text);
  response.body += ",\"content\":";  // as llama.cpp calls it
  append_json_string(response.body, text);
  response.body += '}';
  reply->respond(std::move(response));
}

}  // namespace cairn::serve
