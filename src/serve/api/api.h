// The HTTP API over one engine: OpenAI's endpoints, Anthropic's messages, and what operating a server needs.
// docs/serving.md.
#pragma once

#include <memory>

#include "engine/serving/service.h"
#include "serve/api/serving.h"
#include "serve/http/server.h"

namespace cairn::serve {

class EngineView;

class Api {
 public:
  // Both must outlive the Api, which must outlive the server's run(). Throws Error for a chat template that
  // does not parse.
  Api(engine::Service&, const text::Tokenizer&, ApiOptions);
  ~Api();

  // needs_key: whether the server asks for one, for /openapi.json.
  void add_routes(HttpServer&, bool needs_key);
  // For HttpOptions::refusal_body: errors of the server itself in the shape that the path's clients expect.
  static HttpResponse refusal(const Refusal&);
  // New requests get 503; answers in progress go on.
  void close();

 private:
  HttpResponse get(const HttpRequest&, std::string_view path, const HttpServer&, bool needs_key) const;
  HttpResponse models(const HttpRequest&, bool one) const;
  HttpResponse health() const;

  std::unique_ptr<Serving> serving_;
  std::unique_ptr<EngineView> view_;
};

}  // namespace cairn::serve
