// HTTP/1.1 downloads over TCP and TLS that do not trust the other side: bounded heads and bodies, a deadline
// and a slowest speed for every exchange, certificates verified, no compressed bodies, bounded redirects, and
// a credential that never leaves its origin.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/url.h"

namespace cairn::formats {

// A network error that may be gone at the next try: too slow, or cut off.
class TransientError : public Error {
 public:
  explicit TransientError(const std::string& message) : Error(ErrorKind::network, message) {}
};

struct HttpOptions {
  std::chrono::milliseconds connect_timeout{20'000};  // name, TCP and TLS together
  std::chrono::milliseconds head_timeout{30'000};     // from the request to the end of the answer's head
  std::chrono::milliseconds stall_window{30'000};     // the body must bring slowest_bytes in each such window
  uint64_t slowest_bytes = 16'384;
  int redirects = 8;
  std::string user_agent = "cairn/" CAIRN_VERSION;
  const std::atomic<bool>* cancel = nullptr;  // polled; true ends the exchange with Error(cancelled)
};

struct HttpHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> fields;

  std::optional<std::string_view> field(std::string_view name) const;  // the first of this name, any case
  std::optional<uint64_t> content_length() const;
  bool is_redirect() const;  // 301, 302, 303, 307 or 308 with a Location
};

struct HttpRequest {
  std::string method = "GET";
  Url url;
  std::vector<std::pair<std::string, std::string>> fields = {};
  std::string bearer =
      {};  // sent as Authorization to url's origin only, and never again once a redirect left it
  uint64_t body_limit = 0;  // a longer body is Error(network)
  // Asked when the head is there; the body is read only if true. Not asked for redirects that are followed.
  std::function<bool(const HttpHead&)> wants_body = {};
  std::function<void(std::string_view)> on_body = {};
  // Asked before a redirect is followed; without it, all are, up to HttpOptions::redirects. False ends the
  // fetch with the redirect's head. From https to http none is followed.
  std::function<bool(const HttpHead&, const Url& to)> follows = {};
};

class HttpClient {
 public:
  explicit HttpClient(HttpOptions = {});
  ~HttpClient();

  // Throws Error(network) when the other side cannot be reached, breaks the protocol, stalls, or ends too
  // early. A status is no error: the caller reads it from the head.
  HttpHead fetch(HttpRequest);

  const HttpOptions& options() const { return options_; }

 private:
  struct Tls;
  HttpHead exchange(const HttpRequest&, bool with_bearer);

  HttpOptions options_;
  std::unique_ptr<Tls> tls_;  // made at the first https request
};

}  // namespace cairn::formats
