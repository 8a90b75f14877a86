#include "formats/http_client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kHeadLimit = 64 << 10;
constexpr size_t kPiece = 256 << 10;
constexpr std::chrono::milliseconds kPoll{50};  // how soon a cancellation is seen
constexpr int kInterimAnswers = 4;              // 1xx heads before the real one

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return beast::iequals(beast::string_view(a.data(), a.size()), beast::string_view(b.data(), b.size()));
}

// One connection, one exchange. Every wait ends by its deadline or by cancellation.
class Connection {
 public:
  Connection(const Url& url, const HttpOptions& options, asio::ssl::context* tls)
      : url_(url), options_(options), resolver_(io_), socket_(io_) {
    const auto deadline = Clock::now() + options.connect_timeout;
    tcp::resolver::results_type endpoints;
    wait("looking up the name", deadline, [&](auto handler) {
      resolver_.async_resolve(url.host, url.port,
                              [&endpoints, handler](error_code error, auto found) mutable {
                                endpoints = std::move(found);
                                handler(error);
                              });
    });
    wait("connecting", deadline, [&](auto handler) { asio::async_connect(socket_, endpoints, handler); });
    socket_.set_option(tcp::no_delay(true));
    if (tls) shake_hands(*tls, deadline);
  }

  HttpHead exchange(const HttpRequest& request, bool with_bearer) {
    return secure_ ? exchange_over(*secure_, request, with_bearer)
                   : exchange_over(socket_, request, with_bearer);
  }

 private:
  void shake_hands(asio::ssl::context& tls, Clock::time_point deadline) {
    secure_.emplace(socket_, tls);
    error_code not_an_address;
    asio::ip::make_address(url_.host, not_an_address);
    if (not_an_address) SSL_set_tlsext_host_name(secure_->native_handle(), url_.host.c_str());
    secure_->set_verify_callback(asio::ssl::host_name_verification(url_.host));
    wait("making the connection secure", deadline,
         [&](auto handler) { secure_->async_handshake(asio::ssl::stream_base::client, handler); });
  }

  template <typename Stream>
  HttpHead exchange_over(Stream& stream, const HttpRequest& request, bool with_bearer) {
    const auto deadline = Clock::now() + options_.head_timeout;
    send(stream, request, with_bearer, deadline);
    beast::flat_buffer buffer(kHeadLimit + kPiece);
    std::optional<http::response_parser<http::buffer_body>> parser;
    for (int i = 0; !parser || parser->get().result_int() / 100 == 1; ++i) {
      if (i == kInterimAnswers) refuse("it sends interim answers without end");
      parser.emplace();
      parser->header_limit(kHeadLimit);
      parser->body_limit(request.body_limit);
      if (request.method == "HEAD") {
        parser->skip(true);
        // Content-Length tells of a body that does not come. Boost 1.74 takes boost::none for 0.
        parser->body_limit(UINT64_MAX);
      }
      wait("waiting for the answer", deadline,
           [&](auto handler) { http::async_read_header(stream, buffer, *parser, handler); });
    }
    HttpHead head;
    head.status = int(parser->get().result_int());
    for (const auto& field : parser->get())
      head.fields.emplace_back(std::string(field.name_string()), std::string(field.value()));
    if (request.method == "HEAD" || !request.wants_body || !request.wants_body(head)) return head;
    const auto encoding = head.field("Content-Encoding");
    if (encoding && !equal_ignoring_case(*encoding, "identity") && !encoding->empty())
      refuse(fmt::format("its answer is compressed ({}), which was not asked for", shown(*encoding)));
    read_body(stream, buffer, *parser, request);
    return head;
  }

  template <typename Stream>
  void send(Stream& stream, const HttpRequest& request, bool with_bearer, Clock::time_point deadline) {
    http::request<http::empty_body> message;
    message.method_string(request.method);
    message.target(request.url.target);
    message.version(11);
    const bool default_port = url_.port == (url_.scheme == "https" ? "443" : "80");
    const std::string host = url_.host.find(':') == std::string::npos ? url_.host : "[" + url_.host + "]";
    message.set(http::field::host, default_port ? host : host + ":" + url_.port);
    message.set(http::field::user_agent, options_.user_agent);
    message.set(http::field::accept, "*/*");
    message.set(http::field::accept_encoding, "identity");
    message.set(http::field::connection, "close");
    for (const auto& [name, value] : request.fields) message.set(name, value);
    if (with_bearer) message.set(http::field::authorization, "Bearer " + request.bearer);
    wait("sending the request", deadline, [&](auto handler) { http::async_write(stream, message, handler); });
  }

  template <typename Stream>
  void read_body(Stream& stream, beast::flat_buffer& buffer, http::response_parser<http::buffer_body>& parser,
                 const HttpRequest& request) {
    std::vector<char> piece(kPiece);
    auto deadline = Clock::now() + options_.stall_window;
    uint64_t in_window = 0;
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = piece.data();
      body.size = piece.size();
      body.more = true;
      wait("waiting for more of the answer", deadline,
           [&](auto handler) { http::async_read_some(stream, buffer, parser, handler); });
      const size_t got = piece.size() - body.size;
      if (got > 0 && request.on_body) request.on_body({piece.data(), got});
      in_window += got;
      if (in_window >= options_.slowest_bytes) {
        in_window = 0;
        deadline = Clock::now() + options_.stall_window;
      } else if (Clock::now() >= deadline && !parser.is_done()) {  // it drips: each wait was short
        too_slow("waiting for more of the answer");
      }
    }
  }

  // Runs `start(handler)` to its end. The handler takes an error and ignores what comes after it.
  template <typename Start>
  void wait(const char* what, Clock::time_point deadline, Start&& start) {
    std::optional<error_code> result;
    start([&result](error_code error, auto&&...) { result = error; });
    const char* given_up = nullptr;
    while (!result) {
      io_.restart();
      io_.run_for(kPoll);
      if (result) break;
      if (options_.cancel && *options_.cancel)
        given_up = "cancelled";
      else if (Clock::now() >= deadline)
        given_up = "too slow";
      if (given_up) {
        abandon();
        break;
      }
    }
    if (options_.cancel && *options_.cancel) fail(ErrorKind::cancelled, "cancelled while {}", what);
    if (given_up) too_slow(what);
    check(*result, what);
  }

  // Closes everything under the pending operation and lets it end, since it refers to this object.
  void abandon() {
    error_code ignored;
    resolver_.cancel();
    socket_.close(ignored);
    io_.restart();
    io_.run();
  }

  void check(error_code error, const char* what) {
    if (!error || error == http::error::need_buffer) return;
    if (error == http::error::body_limit) refuse("its answer is longer than was expected");
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
      refuse(fmt::format("the head of its answer is longer than {} bytes", kHeadLimit));
    if (error == http::error::end_of_stream || error == http::error::partial_message ||
        error == asio::ssl::error::stream_truncated || error == asio::error::eof ||
        error == asio::error::connection_reset)
      throw TransientError(url_.origin() + ": it ended the connection before its answer was complete");
    if (secure_)
      if (const long verdict = SSL_get_verify_result(secure_->native_handle()); verdict != X509_V_OK)
        refuse(fmt::format("its certificate is not trusted: {} (SSL_CERT_FILE may name other authorities)",
                           X509_verify_cert_error_string(verdict)));
    refuse(fmt::format("{} failed: {}", what, shown(error.message())));
  }

  [[noreturn]] void too_slow(const char* what) const {
    throw TransientError(fmt::format("{}: {} took too long", url_.origin(), what));
  }
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::network, "{}: {}", url_.origin(), why);
  }

  const Url url_;
  const HttpOptions& options_;
  asio::io_context io_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  std::optional<asio::ssl::stream<tcp::socket&>> secure_;
};

}  // namespace

// The authorities: SSL_CERT_FILE and SSL_CERT_DIR when set, else OpenSSL's own places and where distributions
// keep the bundle.
struct HttpClient::Tls {
  asio::ssl::context context{asio::ssl::context::tls_client};

  Tls() {
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    context.set_verify_mode(asio::ssl::verify_peer);
    error_code ignored;
    context.set_default_verify_paths(ignored);
    if (std::getenv("SSL_CERT_FILE") || std::getenv("SSL_CERT_DIR")) return;
    for (const char* bundle : {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                               "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"})
      if (std::error_code missing; std::filesystem::exists(bundle, missing)) {
        context.load_verify_file(bundle, ignored);
        return;
      }
  }
};

std::optional<std::string_view> HttpHead::field(std::string_view name) const {
  for (const auto& [found, value] : fields)
    if (equal_ignoring_case(found, name)) return value;
  return std::nullopt;
}

std::optional<uint64_t> HttpHead::content_length() const {
  const auto text = field("Content-Length");
  uint64_t value = 0;
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return value;
}

bool HttpHead::is_redirect() const {
  return (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) &&
         field("Location");
}

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)) {}
HttpClient::~HttpClient() = default;

HttpHead HttpClient::exchange(const HttpRequest& request, bool with_bearer) {
  if (options_.cancel && *options_.cancel)
    fail(ErrorKind::cancelled, "cancelled before {}", request.url.origin());
  const bool secure = request.url.scheme == "https";
  if (secure && !tls_) tls_ = std::make_unique<Tls>();
  return Connection(request.url, options_, secure ? &tls_->context : nullptr).exchange(request, with_bearer);
}

HttpHead HttpClient::fetch(HttpRequest request) {
  const std::string home = request.url.origin();
  bool with_bearer = !request.bearer.empty();
  const auto wants_body = std::move(request.wants_body);
  request.wants_body = [&](const HttpHead& head) {
    return !head.is_redirect() && wants_body && wants_body(head);
  };
  for (int redirects = 0;; ++redirects) {
    HttpHead head = exchange(request, with_bearer);
    if (!head.is_redirect()) return head;
    const Url next = resolve_location(request.url, *head.field("Location"));
    if (request.follows && !request.follows(head, next)) return head;
    if (redirects == options_.redirects)
      fail(ErrorKind::network, "{}: more than {} redirects in a row", home, options_.redirects);
    if (request.url.scheme == "https" && next.scheme == "http")
      fail(ErrorKind::network, "{} redirects from https to {}, which is not followed", request.url.origin(),
           next.origin());
    with_bearer = with_bearer && next.origin() == home;
    request.url = next;
  }
}

}  // namespace cairn::formats
