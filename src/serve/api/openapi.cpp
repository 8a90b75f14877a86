#include "serve/api/openapi.h"

#include "serve/api/api_error.h"
#include "serve/api/routes.h"
#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

Json reference(const char* schema) { return {{"$ref", std::string("#/components/schemas/") + schema}}; }

Json content(const char* type, Json schema) {
  Json media = Json::object();
  if (!schema.is_null()) media["schema"] = std::move(schema);
  return {{type, std::move(media)}};
}

void add_errors(Json& responses, std::string_view path, std::initializer_list<int> statuses) {
  const char* schema = error_shape(path) == ErrorShape::anthropic ? "MessagesError" : "ErrorResponse";
  const auto describe = [](int status) {
    switch (status) {
      case 400:
        return "The request is not valid, or asks for what is not supported; the message names the field";
      case 401: return "No valid key";
      case 403: return "Not from this Host or Origin";
      case 404: return "No such model";
      case 413: return "The body is too large";
      case 429: return "Too many requests wait; Retry-After says when to try again";
      case 503: return "The server is closing";
      default: return "The server failed; its log says why";
    }
  };
  for (const int status : statuses)
    responses[std::to_string(status)] = {{"description", describe(status)},
                                         {"content", content("application/json", reference(schema))}};
}

}  // namespace

std::string openapi_document(const Serving& serving, bool needs_key) {
  Json document = {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "cairn"},
        {"version", CAIRN_VERSION},
        {"description",
         "Members that a schema does not name are ignored, as OpenAI-compatible servers do. Members that are "
         "named and cannot be honoured are refused with a reason. null means left out."}}}};
  auto& paths = document["paths"] = Json::object();
  for (const auto& route : post_routes()) {
    Json responses = Json::object();
    Json ok = {{"description", "The answer"},
               {"content", content("application/json", reference(route.response))}};
    if (route.streams) {
      ok["description"] = "The answer, or with \"stream\": true its events";
      ok["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
    }
    responses["200"] = std::move(ok);
    add_errors(responses, route.path, {400, 401, 403, 404, 413, 429, 500, 503});
    paths[route.path]["post"] = {
        {"summary", route.summary},
        {"requestBody",
         {{"required", true}, {"content", content("application/json", reference(route.request))}}},
        {"responses", std::move(responses)}};
  }
  for (const auto& route : get_routes()) {
    const std::string_view path = route.path;
    Json responses = Json::object();
    responses["200"] = {
        {"description", "The answer"},
        {"content", content(route.content_type, *route.response ? reference(route.response) : Json())}};
    Json operation = {{"summary", route.summary}};
    if (path.find('{') != path.npos) {
      operation["parameters"] = Json::array({{{"name", "model"},
                                              {"in", "path"},
                                              {"required", true},
                                              {"schema", {{"type", "string"}, {"minLength", 1}}}}});
      add_errors(responses, path, {404});
    }
    if (path == "/health") {
      operation["security"] = Json::array();
      responses["503"] = {{"description", "Closing, or a step hangs"},
                          {"content", content("application/json", reference("Health"))}};
      add_errors(responses, path, {400, 403});
    } else {
      add_errors(responses, path, {400, 401, 403});
    }
    operation["responses"] = std::move(responses);
    paths[route.path]["get"] = std::move(operation);
  }
  auto& components = document["components"];
  components["schemas"] = schemas().document();
  // Defaults that are the model's own.
  for (const char* request : {"ChatRequest", "CompletionRequest", "ResponsesRequest", "MessagesRequest"}) {
    auto& properties = components["schemas"][request]["properties"];
    properties["temperature"]["default"] = serving.options.temperature.value_or(1);
    properties["top_p"]["default"] = serving.options.top_p.value_or(1);
  }
  if (needs_key) {
    components["securitySchemes"] = {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
                                     {"key", {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}}}};
    document["security"] = Json::array({{{"bearer", Json::array()}}, {{"key", Json::array()}}});
  }
  return dump(document);
}

}  // namespace cairn::serve
