// From messages to the tokens that the model reads.
#pragma once

#include <string>
#include <vector>

#include "serve/api/serving.h"

namespace cairn::serve {

struct ChatPrompt {
  std::vector<text::TokenId> tokens;
  std::string tail;  // the end of the rendered text: it tells whether the template has opened the reasoning
};

// messages: as /v1/chat/completions takes them, accepted by its schema. tools: null or the request's.
// arguments: variables for the template besides (TemplateArguments in schemas_chat.cpp). Special tokens that
// messages and tools spell are text (user_text.h). Throws ApiError(400): no template, or the template's own
// complaint.
ChatPrompt render_chat(const Serving&, Json messages, Json tools, const Json& arguments);

}  // namespace cairn::serve
