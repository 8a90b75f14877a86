#include "serve/api/api.h"

#include <fmt/chrono.h>

#include <ctime>

#include "formats/untrusted_text.h"
#include "serve/api/api_error.h"
#include "serve/api/endpoints.h"
#include "serve/api/engine_view.h"
#include "serve/api/metrics.h"
#include "serve/api/openapi.h"
#include "serve/api/routes.h"
#include "serve/api/schemas.h"
#include "serve/page.h"

namespace cairn::serve {
namespace {

void answer(Serving& serving, const PostRoute& route, HttpRequest& request,
            const std::shared_ptr<Reply>& reply) {
  const auto shape = error_shape(request.path);
  try {
    Json body = parse_body(request.body);
    std::string().swap(request.body);
    schemas().check(route.request, body);
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
    : serving_(std::make_unique<Serving>(service, tokenizer, std::move(options))),
      view_(std::make_unique<EngineView>(*serving_)) {
  schemas();  // a mistake in them shows at the start
}

Api::~Api() = default;

void Api::close() { serving_->closing = true; }

HttpResponse Api::refusal(const Refusal& refusal) {
  return error_response({refusal.status, "", std::string(refusal.code), std::string(refusal.message)},
                        error_shape(refusal.path), "");
}

void Api::add_routes(HttpServer& server, bool needs_key) {
  for (const auto& route : post_routes())
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
  for (const auto& route : get_routes())
    server.route(
        "GET", route.path,
        [this, &server, path = std::string_view(route.path), needs_key](const HttpRequest& request,
                                                                        const std::shared_ptr<Reply>& reply) {
          reply->respond(get(request, path, server, needs_key));
        },
        std::string_view(route.path) == "/health");
  if (serving_->options.page) add_page_routes(server);
}

HttpResponse Api::get(const HttpRequest& request, std::string_view path, const HttpServer& server,
                      bool needs_key) const {
  HttpResponse response;
  response.headers.emplace_back("Cache-Control", "no-store");
  if (path == "/v1/models") return models(request, false);
  if (path == "/v1/models/{model}") return models(request, true);
  if (path == "/health") return health();
  if (path == "/engine") {
    response.body = view_->json();
  } else if (path == "/metrics") {
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics_text(*serving_, server.stats());
  } else {
    response.body = openapi_document(*serving_, needs_key);
  }
  return response;
}

HttpResponse Api::models(const HttpRequest& request, bool one) const {
  const auto& options = serving_->options;
  const auto describe = [&](const std::string& name) {
    // OpenAI's members, then Anthropic's.
    return Json{
        {"id", name},
        {"object", "model"},
        {"created", serving_->created},
        {"owned_by", "cairn"},
        {"root", options.model_name},
        {"max_model_len", serving_->service.engine().context()},
        {"type", "model"},
        {"display_name", name},
        {"created_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time_t(serving_->created)))}};
  };
  HttpResponse response;
  if (one) {
    const auto name = std::string(request.param("model"));
    if (!serving_->serves(name))
      return error_response({404, "model", "model_not_found",
                             fmt::format("the model '{}' is not served here; this server has '{}'",
                                         formats::shown(name, 100), options.model_name)},
                            ErrorShape::openai, request.id);
    response.body = dump(describe(name));
    return response;
  }
  Json list = Json::array({describe(options.model_name)});
  for (const auto& alias : options.aliases) list.push_back(describe(alias));
  const std::string last = list.back().at("id");
  response.body = dump({{"object", "list"},
                        {"data", std::move(list)},
                        {"has_more", false},
                        {"first_id", options.model_name},
                        {"last_id", last}});
  return response;
}

// Public: it says nothing about the model or its users.
HttpResponse Api::health() const {
  const auto stats = serving_->service.stats();
  const double limit = serving_->options.stuck_seconds;
  HttpResponse response;
  response.headers.emplace_back("Cache-Control", "no-store");
  const bool hangs = stats.step_running_for > limit;
  // Something to do, and nobody does it.
  const bool idle =
      stats.running + stats.waiting > 0 && stats.step_running_for == 0 && stats.since_step > limit;
  // Nothing to do, and nobody looks for it.
  const bool dead = stats.step_running_for == 0 && stats.since_seen > std::max(limit, 5.0);
  if (hangs || idle || dead) {
    response.status = 503;
    response.body =
        dump({{"status", "stuck"},
              {"message", hangs  ? fmt::format("a step has been running for {:.0f} s", stats.step_running_for)
                          : idle ? fmt::format("no step has begun for {:.0f} s", stats.since_step)
                                 : fmt::format("the engine has not moved for {:.0f} s", stats.since_seen)}});
  } else if (serving_->closing) {
    response.status = 503;
    response.body = dump({{"status", "closing"}});
  } else {
    response.body = dump({{"status", "ok"}});
  }
  return response;
}

std::string client_of(const HttpRequest& request) {
  if (!request.client.empty()) return request.client;
  return request.peer.substr(0, request.peer.rfind(':'));
}

}  // namespace cairn::serve
