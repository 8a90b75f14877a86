// What goes back to a client whose request cannot be served.
#pragma once

#include <fmt/core.h>

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "serve/http/server.h"

namespace cairn::serve {

struct ApiError : std::exception {
  ApiError(int http_status, std::string field, std::string error_code, std::string sentence)
      : status(http_status),
        param(std::move(field)),
        code(std::move(error_code)),
        message(std::move(sentence)) {}
  const char* what() const noexcept override { return message.c_str(); }

  int status;
  std::string param;    // the field: "messages[1].content"; "" when it is none
  std::string code;     // "invalid_value", "model_not_found", ...
  std::string message;  // one sentence; no paths, no text of libraries
};

template <typename... Args>
[[noreturn]] void refuse(int status, std::string param, std::string code, fmt::format_string<Args...> message,
                         Args&&... args) {
  throw ApiError(status, std::move(param), std::move(code),
                 fmt::format(message, std::forward<Args>(args)...));
}

// What the engine refused: invalid_argument and unsupported are the client's (400), overloaded is 429 with
// Retry-After (503 while closing), the rest is ours and keeps its text for the log (500).
ApiError api_error(const Error&, std::string param = {}, bool closing = false);

enum class ErrorShape { openai, anthropic };
ErrorShape error_shape(std::string_view path);  // Anthropic's for /v1/messages and what is below it

// {"error":{"message","type","param","code"}} or {"type":"error","error":{"type","message"},"request_id"}.
std::string error_body(const ApiError&, ErrorShape, std::string_view request_id);
HttpResponse error_response(const ApiError&, ErrorShape, std::string_view request_id);

}  // namespace cairn::serve
