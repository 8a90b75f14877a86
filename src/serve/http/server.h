// The HTTP/1.1 server of `cairn serve`: a few I/O threads, no thread per connection. What it promises to the
// routes: a request that arrives is well-formed (request_parser.h), within its limits, from an allowed host
// and origin, and holds a valid key unless its route is public. Everything it refuses, it refuses by itself.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/histogram.h"

namespace cairn::serve {

using Fields = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;
  std::string path;   // percent-decoded and normalised: "/v1/models", never a trailing slash, valid UTF-8
  std::string query;  // as it came, without '?'
  Fields headers;     // in order; without Authorization and x-api-key, which end at the door
  Fields params;      // what the {names} of the route's pattern matched
  std::string body;
  std::string id;      // the client's X-Request-Id when it is a sane one, else made here
  std::string peer;    // "127.0.0.1:50312"
  std::string client;  // name of the key that was used, "" when none is needed

  std::string_view header(std::string_view name) const;  // any case; "" when missing, the first when repeated
  std::string_view param(std::string_view name) const;   // "" when the pattern has no such name
  std::optional<std::string> query_value(std::string_view name) const;  // decoded; nullopt when missing
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  Fields headers = {};
};

class Exchange;

// The way back, from any thread. Exactly one of respond() or start(), which is followed by writes and
// finish(). Dropping it unanswered answers 500; dropping an unfinished stream cuts the connection, so that
// the client can tell. Calls after finish(), or after the client has gone, do nothing.
class Reply {
 public:
  explicit Reply(std::shared_ptr<Exchange>);
  ~Reply();
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;

  void respond(HttpResponse);
  // A stream without a known length (chunked). Of text/event-stream each write() must hold whole events,
  // since comments may be put between two writes when the stream is silent.
  void start(int status, std::string_view content_type, const Fields& headers = {});
  // Queues and never blocks. False once the client is gone or HttpOptions::write_queue_bytes wait for it,
  // which ends its connection.
  // since: when what is written began to be (steady_seconds()), for HttpStats::delivered; 0: not counted.
  bool write(std::string_view, double since = 0);
  void finish();
  // Once, from an I/O thread, when the client went away before the end of the answer; at once, on this
  // thread, if it already has. A client that closes its sending side counts as gone. Must not block.
  void on_gone(std::function<void()>);
  bool gone() const;
  size_t queued() const;  // bytes that wait here because the client reads slowly

 private:
  const std::shared_ptr<Exchange> exchange_;
};

// Called on an I/O thread, so it must not block: long work goes elsewhere and takes the reply along. What it
// throws becomes a 500 without its text, which goes to HttpOptions::on_fault.
using Handler = std::function<void(HttpRequest, std::shared_ptr<Reply>)>;

// Why the server itself refuses a request. The message is ours and holds nothing of the request.
struct Refusal {
  int status;
  std::string_view code;     // "invalid_api_key", "not_found", ... (server.cpp lists them)
  std::string_view message;  // a sentence
  std::string_view path;     // normalised, or "" when it did not come to that
};

// One line of an access log: no body, no query, no header.
struct AccessRecord {
  std::string_view id, peer, client;
  std::string_view method, path;  // "-" when the request could not be read
  int status;                     // 499 when the client went away before there was one
  uint64_t bytes;                 // sent, heads included
  double ms;                      // from the first byte of the request to the last of the answer
  bool gone;                      // the client went away before the end
};

struct ApiKey {
  std::string name;  // what requests and logs call its holder
  std::string key;
};

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, or a name that resolves to one
  uint16_t port = 0;               // 0: any free one; listen() tells which
  int io_threads = 1;

  std::vector<ApiKey> api_keys = {};
  std::string tls_certificate = {}, tls_key = {};  // PEM files (the chain, the private key); both or neither
  // Names that a Host header may hold besides addresses, localhost and the name in `host`; "*" for any.
  std::vector<std::string> allowed_hosts = {};
  // Web pages of other origins that may call: "https://chat.example", "http://localhost:*" (any port), "*".
  std::vector<std::string> allowed_origins = {};

  size_t header_bytes = 32 << 10;
  size_t body_bytes = 32 << 20;
  size_t all_bodies_bytes = 1 << 30;   // of all requests at once; past it new ones get 503
  size_t write_queue_bytes = 1 << 20;  // of one stream
  int connections = 16'384;            // past it new ones get 503; lowered when the system allows fewer files

  std::chrono::milliseconds idle_timeout{75'000};   // between requests
  std::chrono::milliseconds head_timeout{10'000};   // from a request's first byte to the end of its head
  std::chrono::milliseconds body_timeout{30'000};   // for each further 16 KiB of a body
  std::chrono::milliseconds write_timeout{60'000};  // without a byte taken by a client that has bytes waiting
  std::chrono::milliseconds comment_interval{10'000};  // ": keep-alive" on an event stream silent for so long

  // The body (and content type) of a refusal; {"error": {...}} of our own when empty. Its status is kept.
  std::function<HttpResponse(const Refusal&)> refusal_body = {};
  std::function<void(const AccessRecord&)> on_access = {};  // on an I/O thread, must not block
  std::function<void(std::string_view id, std::string_view what)> on_fault = {};  // a handler threw
};

struct HttpStats {
  uint64_t accepted = 0, accept_errors = 0;
  uint64_t refused_connections = 0;  // past HttpOptions::connections
  uint64_t requests = 0;             // whose head was read
  uint64_t malformed = 0;            // answered 400, 408, 413, 414, 431, 501 or 505 by the server
  uint64_t denied = 0;               // answered 401, 403 or 421
  uint64_t answered[6] = {};         // by first digit of the status
  uint64_t gone = 0;                 // clients that left before the end of their answer
  uint64_t overflowed = 0;           // streams cut because the client read too slowly
  uint64_t timeouts = 0;
  uint64_t bytes_in = 0, bytes_out = 0;
  // Seconds from what Reply::write() was told to when the socket took the last of those bytes; those that
  // took more than kLate.
  Histogram delivered;
  uint64_t late = 0;
  static constexpr double kLate = 0.002;
  uint64_t sends = 0;                                    // system calls that wrote
  int64_t connections = 0, running = 0, body_bytes = 0;  // now: open, being answered, held in bodies
};

class HttpServer {
 public:
  // Throws Error(invalid_argument) for options that cannot be, Error(invalid_file) for a bad certificate.
  explicit HttpServer(HttpOptions);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Before listen(). A pattern is made of whole segments: text, {name} for one segment, {name*} for the rest
  // (one or more segments, joined by '/'). GET answers HEAD too; OPTIONS is answered here. Where several
  // patterns fit, the first registered one counts.
  void route(std::string_view method, std::string_view pattern, Handler, bool is_public = false);

  // Binds and returns the port. Throws Error(invalid_argument) when others could reach the address and no key
  // is set, Error(io) when it cannot be bound.
  uint16_t listen();
  // Serves until drain() or stop() is through. The calling thread is one of the I/O threads.
  void run();

  // From any thread, and at once. drain: no new connections, idle ones end, running answers have until the
  // deadline, then run() returns. stop: everything ends now.
  void drain(std::chrono::milliseconds deadline);
  void stop();
  bool draining() const;

  // Streams that begin from now on: Reply::write() sends by itself what the socket takes at once. For writers
  // on the same few cores as the I/O threads, which would take turns with them; costs the writer a system
  // call per event. Not with TLS.
  void write_through(bool);

  HttpStats stats() const;  // from any thread

 private:
  struct Parts;
  const std::unique_ptr<Parts> parts_;
};

// "\n"-framed Server-Sent Event of one data payload; lines inside the payload become several data lines.
std::string sse_event(std::string_view data, std::string_view event = {});

}  // namespace cairn::serve
