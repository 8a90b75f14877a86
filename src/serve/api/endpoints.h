// The endpoints' handlers. Each runs on a worker thread with a body that its schema has accepted; what it
// throws becomes the answer.
#pragma once

#include <memory>
#include <string>

#include "serve/api/serving.h"

namespace cairn::serve {

void chat_completions(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void completions(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void embeddings(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void responses(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void messages(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void count_message_tokens(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void tokenize(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);
void detokenize(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);

// Whose a request is, for fairness: the key's name, or the address without its port.
std::string client_of(const HttpRequest&);

}  // namespace cairn::serve
