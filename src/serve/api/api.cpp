#include "serve/api/api.h"

#include "serve/api/api_error.h"
#include "serve/api/endpoints.h"
#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

using Endpoint = void (*)(Serving&, const HttpRequest&, Json, const std::shared_ptr<Reply>&);

struct PostRoute {
  const char* path;
  const char* schema;
  Endpoint endpoint;
};

constexpr PostRoute kPosts[] = {
    {"/v1/chat/completions", "ChatRequest", chat_completions},
};

void answer(Serving& serving, const PostRoute& route, HttpRequest& request,
            const std::shared_ptr<Reply>& reply) {
  const auto shape = error_shape(request.path);
  try {
    Json body = parse_body(request.body);
    std::string().swap(request.body);
    schemas().check(route.schema, body);
    route.endpoint(serving, request, std::move(body), reply);
  } catch (const ApiError& error) {
    reply->respond(error_response(error, shape, request.id));
  } catch (const Error& error) {
    const auto shown = api_error(error, "", serving.closing);
    if (shown.status == 500 && serving.options.log)
      serving.options.log(fmt::format("request={} error: {}", request.id, error.what()));
    reply->respond(error_response(shown, shape, request.id));
  } catch (const std::exception& error) {
    if (serving.options.log)
      serving.options.log(fmt::format("request={} fault: {}", request.id, error.what()));
    reply->respond(
        error_response({500, "", "internal_error", "the server failed on this request; its log says why"},
                       shape, request.id));
  }
}

}  // namespace

Api::Api(engine::Service& service, const text::Tokenizer& tokenizer, ApiOptions options)
    : serving_(std::make_unique<Serving>(service, tokenizer, std::move(options))) {
  schemas();  // a mistake in them shows at the start
}

Api::~Api() = default;

void Api::close() { serving_->closing = true; }

HttpResponse Api::refusal(const Refusal& refusal) {
  return error_response({refusal.status, "", std::string(refusal.code), std::string(refusal.message)},
                        error_shape(refusal.path), "");
}

void Api::add_routes(HttpServer& server) {
  for (const auto& route : kPosts)
    server.route("POST", route.path, [this, &route](HttpRequest request, std::shared_ptr<Reply> reply) {
      const auto shape = error_shape(request.path);
      const std::string id = request.id;
      auto& serving = *serving_;
      const bool taken =
          !serving.closing &&
          serving.workers.post([&serving, &route, request = std::move(request), reply]() mutable {
            if (!reply->gone()) answer(serving, route, request, reply);
          });
      if (taken) return;
      const ApiError error = serving.closing ? ApiError(503, "", "closing", "the server is closing")
                                             : ApiError(429, "", "overloaded",
                                                        "too many requests wait to be read; try again later");
      reply->respond(error_response(error, shape, id));
    });
}

std::string client_of(const HttpRequest& request) {
  if (!request.client.empty()) return request.client;
  return request.peer.substr(0, request.peer.rfind(':'));
}

}  // namespace cairn::serve
