#include "serve/api/api_error.h"

#include "serve/api/json_text.h"

namespace cairn::serve {
namespace {

std::string_view openai_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string_view anthropic_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

}  // namespace

ApiError api_error(const Error& error, std::string param, bool closing) {
  switch (error.kind()) {
    case ErrorKind::invalid_argument:
    case ErrorKind::unsupported:
      return {400, std::move(param),
              error.kind() == ErrorKind::unsupported ? "unsupported_value" : "invalid_value", error.what()};
    case ErrorKind::overloaded: return {closing ? 503 : 429, "", "overloaded", error.what()};
    case ErrorKind::cancelled:
      return {503, "", "cancelled", "the server ended the request before it was done"};
    default: return {500, "", "internal_error", "the server failed on this request; its log says why"};
  }
}

ErrorShape error_shape(std::string_view path) {
  constexpr std::string_view kMessages = "/v1/messages";
  const bool below =
      path.starts_with(kMessages) && (path.size() == kMessages.size() || path[kMessages.size()] == '/');
  return below ? ErrorShape::anthropic : ErrorShape::openai;
}

std::string error_body(const ApiError& error, ErrorShape shape, std::string_view request_id) {
  if (shape == ErrorShape::anthropic) {
    // Their errors name no field; the sentence does.
    return dump({{"type", "error"},
                 {"error", {{"type", anthropic_type(error.status)}, {"message", error.message}}},
                 {"request_id", request_id}});
  }
  const Json param = error.param.empty() ? Json() : Json(error.param);
  return dump({{"error",
                {{"message", error.message},
                 {"type", openai_type(error.status)},
                 {"param", param},
                 {"code", error.code}}}});
}

HttpResponse error_response(const ApiError& error, ErrorShape shape, std::string_view request_id) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_body(error, shape, request_id);
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace cairn::serve
