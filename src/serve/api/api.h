// The HTTP API over one engine: OpenAI's endpoints, Anthropic's messages, and what operating a server needs.
// docs/serving.md.
#pragma once

#include <memory>

#include "engine/serving/service.h"
#include "serve/api/serving.h"
#include "serve/http/server.h"

namespace cairn::serve {

class Api {
 public:
  // Both must outlive the Api, which must outlive the server's run(). Throws Error for a chat template that
  // does not parse.
  Api(engine::Service&, const text::Tokenizer&, ApiOptions);
  ~Api();

  void add_routes(HttpServer&);
  // For HttpOptions::refusal_body: errors of the server itself in the shape that the path's clients expect.
  static HttpResponse refusal(const Refusal&);
  // New requests get 503; answers in progress go on.
  void close();

 private:
  std::unique_ptr<Serving> serving_;
};

}  // namespace cairn::serve
