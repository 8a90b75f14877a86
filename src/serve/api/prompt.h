// From messages to the tokens that the model reads.
#pragma once

#include <string>
#include <vector>

#include "serve/api/generation.h"
#include "serve/api/serving.h"

namespace cairn::serve {

// What the chat dialects have in common, in the shape of /v1/chat/completions.
struct ChatInput {
  Json messages, tools;              // tools: null when there are none
  std::string tool_choice = "auto";  // "auto", "none", "required", "named"
  std::string tool_name;             // of "named"
  bool parallel_calls = true;
  Json template_arguments = Json::object();
  bool continue_last = false;  // the last message is an assistant's, which the answer goes on with
};

// The tokens that the model reads, and the rendered text's end. Special tokens that messages, tools and
// arguments spell are text (user_text.h). Throws ApiError(400): no template, or the template's own complaint.
struct ChatPrompt {
  std::vector<text::TokenId> tokens;
  std::string tail;
};
ChatPrompt render_chat(const Serving&, const ChatInput&);

// Renders, and fills the request's prompt, the answer's form (constraint.h has body and format) and what
// reading the answer needs.
void prepare_chat(const Serving&, ChatInput, const Json& body, const Json* format,
                  const std::string& format_place, engine::GenerateRequest&, GenerationPlan&);

struct RawPrompt {
  std::vector<text::TokenId> tokens;
  std::string text;
};

// What /v1/completions calls prompt and /v1/embeddings input: a text, token ids, or a list of either. Texts
// are the client's own template: special tokens in them are tokens, and what the tokenizer adds is added.
// Throws ApiError(400) naming `field` for empty ones and ids outside the vocabulary.
std::vector<RawPrompt> read_prompts(const Serving&, const Json& prompt, const std::string& field);

text::TokenId checked_token(const Serving&, const Json& id, const std::string& place);

}  // namespace cairn::serve
