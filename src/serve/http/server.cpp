#include "serve/http/server.h"

#include <sys/resource.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cassert>
#include <random>
#include <thread>

#include "base/error.h"
#include "serve/http/exchange.h"
#include "serve/http/loop.h"
#include "serve/http/text.h"

namespace cairn::serve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr int kFilesForOthers = 256;  // model files, logs, a GPU driver's handles
constexpr int kRefusedAtOnce = 256;   // connections past the limit that are told so
constexpr int kAcceptsAtOnce = 64;
constexpr std::chrono::milliseconds kAcceptPause{100};  // when the system has no file or memory for one more

uint64_t random_seed() {
  std::random_device device;
  return uint64_t(device()) << 32 | device();
}

// How many connections the system lets this process have, after asking for as many files as are needed.
int connections_possible(int wanted) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return wanted;
  const rlim_t needed = rlim_t(wanted) + kRefusedAtOnce + kFilesForOthers;
  if (files.rlim_cur < needed) {
    files.rlim_cur = std::min(needed, files.rlim_max);
    setrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_NOFILE, &files);
  }
  if (files.rlim_cur >= needed) return wanted;
  return std::max(1, int(files.rlim_cur) - kRefusedAtOnce - kFilesForOthers);
}

void check(const HttpOptions& options) {
  if (options.io_threads < 1 || options.io_threads > 64)
    fail(ErrorKind::invalid_argument, "{} I/O threads: 1 to 64 are possible", options.io_threads);
  if (options.connections < 1)
    fail(ErrorKind::invalid_argument, "{} connections: at least 1", options.connections);
  if (options.header_bytes < 256 || options.header_bytes > 1 << 20)
    fail(ErrorKind::invalid_argument, "a limit of {} bytes for headers: 256 to 1048576 are possible",
         options.header_bytes);
  if (options.body_bytes > size_t{1} << 40)
    fail(ErrorKind::invalid_argument, "a limit of {} bytes for bodies is past 2^40", options.body_bytes);
  for (const auto timeout : {options.idle_timeout, options.head_timeout, options.body_timeout,
                             options.write_timeout, options.comment_interval})
    if (timeout.count() <= 0)
      fail(ErrorKind::invalid_argument, "a timeout of {} ms: at least 1", timeout.count());
  if (options.tls_certificate.empty() != options.tls_key.empty())
    fail(ErrorKind::invalid_argument, "TLS needs both a certificate and its key");
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const { return find_field(headers, name); }

std::string_view HttpRequest::param(std::string_view name) const {
  for (const auto& [found, value] : params)
    if (found == name) return value;
  return {};
}

std::optional<std::string> HttpRequest::query_value(std::string_view name) const {
  for (std::string_view rest = query; !rest.empty();) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    if (percent_decoded(pair.substr(0, equals), true) != name) continue;
    return percent_decoded(pair.substr(std::min(equals + 1, pair.size())), true);
  }
  return std::nullopt;
}

std::string sse_event(std::string_view data, std::string_view event) {
  std::string text;
  text.reserve(data.size() + event.size() + 24);
  if (!event.empty()) text.append("event: ").append(event).append("\n");
  for (;;) {
    const size_t end = data.find('\n');
    text.append("data: ").append(data.substr(0, end)).append("\n");
    if (end == data.npos) break;
    data.remove_prefix(end + 1);
  }
  return text += '\n';
}

Reply::Reply(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}

Reply::~Reply() {
  try {
    exchange_->abandon(std::uncaught_exceptions() > 0);
  } catch (...) {  // no memory for the answer: the client waits until it gives up
  }
}

void Reply::respond(HttpResponse response) { exchange_->respond(std::move(response)); }
void Reply::start(int status, std::string_view content_type, const Fields& headers) {
  exchange_->start(status, content_type, headers);
}
bool Reply::write(std::string_view bytes, double since) { return exchange_->write(bytes, since); }
void Reply::finish() { exchange_->finish(); }
void Reply::on_gone(std::function<void()> call) { exchange_->on_gone(std::move(call)); }
bool Reply::gone() const { return exchange_->gone(); }
size_t Reply::queued() const { return exchange_->queued(); }

struct HttpServer::Parts {
  explicit Parts(HttpOptions options) : shared(std::make_shared<Shared>(std::move(options), random_seed())) {
    for (int i = 1; i < shared->options.io_threads; ++i) loops.push_back(std::make_shared<Loop>(shared));
  }

  tcp::endpoint address() {
    const auto& options = shared->options;
    error_code error;
    const auto literal = asio::ip::make_address(options.host, error);
    if (!error) return {literal, options.port};
    tcp::resolver resolver(loops[0]->io());
    const auto found = resolver.resolve(options.host, std::to_string(options.port), error);
    if (error || found.empty())
      fail(ErrorKind::invalid_argument, "'{}' is neither an address nor a name that this machine knows",
           options.host);
    for (const auto& entry : found)  // localhost may be both; clients try IPv4 in any case
      if (entry.endpoint().address().is_v4()) return entry.endpoint();
    return found.begin()->endpoint();
  }

  void wait_for_clients() {
    acceptor.async_wait(tcp::acceptor::wait_read, [this](error_code error) {
      if (!error && acceptor.is_open()) accept_some();
    });
  }

  void accept_some() {
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
      Loop& loop = *loops[next_loop];
      tcp::socket socket(loop.io());
      error_code error;
      acceptor.accept(socket, error);
      if (error == asio::error::would_block || error == asio::error::try_again) break;
      if (error == asio::error::no_descriptors || error == asio::error::no_memory ||
          error == asio::error::no_buffer_space ||
          error == boost::system::errc::too_many_files_open_in_system) {
        // The client stays in the kernel's queue; asking again at once would spin.
        ++shared->accept_errors;
        pause.expires_after(kAcceptPause);
        pause.async_wait([this](error_code cancelled) {
          if (!cancelled && acceptor.is_open()) wait_for_clients();
        });
        return;
      }
      if (error) {  // one that gave up before its turn
        ++shared->accept_errors;
        continue;
      }
      const int64_t open = shared->connections;
      const bool too_many = open >= possible;
      if (too_many) {
        ++shared->refused_connections;
        if (shared->tls || open >= possible + kRefusedAtOnce) continue;  // closes it
      }
      socket.non_blocking(true, error);
      if (!error) socket.set_option(tcp::no_delay(true), error);
      if (error) continue;
      ++shared->accepted;
      ++shared->connections;
      loop.adopt(std::move(socket), too_many);
      next_loop = (next_loop + 1) % loops.size();
    }
    wait_for_clients();
  }

  void end(Loop::Clock::time_point until) {
    shared->draining = true;
    asio::post(loops[0]->io(), [this, until] {
      error_code ignored;
      acceptor.close(ignored);
      pause.cancel();
      for (const auto& loop : loops) loop->drain(until);
    });
  }

  const std::shared_ptr<Shared> shared;
  std::vector<std::shared_ptr<Loop>> loops{std::make_shared<Loop>(shared)};
  tcp::acceptor acceptor{loops[0]->io()};
  asio::steady_timer pause{loops[0]->io()};
  int possible = 0;
  size_t next_loop = 0;
};

HttpServer::HttpServer(HttpOptions options)
    : parts_((check(options), std::make_unique<Parts>(std::move(options)))) {}
HttpServer::~HttpServer() = default;

void HttpServer::route(std::string_view method, std::string_view pattern, Handler handler, bool is_public) {
  parts_->shared->router.add(method, pattern, std::move(handler), is_public);
}

uint16_t HttpServer::listen() {
  Parts& parts = *parts_;
  const auto& options = parts.shared->options;
  const tcp::endpoint address = parts.address();
  if (!address.address().is_loopback() && !parts.shared->access.needs_key())
    fail(ErrorKind::invalid_argument,
         "{} can be reached from other machines, and no API key is set: anyone there could use this server\n"
         "hint: set an API key, or listen on 127.0.0.1",
         options.host);
  parts.possible = connections_possible(options.connections);
  error_code error;
  const char* step = "opened";
  const auto next = [&](const char* name, auto&& act) {
    if (error) return;
    step = name;
    act();
  };
  next("opened", [&] { parts.acceptor.open(address.protocol(), error); });
  next("shared", [&] { parts.acceptor.set_option(tcp::acceptor::reuse_address(true), error); });
  if (address.address().is_v6())
    next("opened for IPv4", [&] { parts.acceptor.set_option(asio::ip::v6_only(false), error); });
  next("bound", [&] { parts.acceptor.bind(address, error); });
  next("listened on", [&] { parts.acceptor.listen(asio::socket_base::max_listen_connections, error); });
  next("made non-blocking", [&] { parts.acceptor.non_blocking(true, error); });
  if (error)
    fail(ErrorKind::io, "{}, port {}, cannot be {}: {}{}", options.host, options.port, step, error.message(),
         error == asio::error::address_in_use ? "\nhint: another program uses the port; choose another one"
                                              : "");
  return parts.acceptor.local_endpoint().port();
}

void HttpServer::run() {
  Parts& parts = *parts_;
  assert(parts.acceptor.is_open() || parts.shared->draining);
  if (parts.acceptor.is_open()) parts.wait_for_clients();
  std::vector<std::thread> threads;
  for (size_t i = 1; i < parts.loops.size(); ++i)
    threads.emplace_back([loop = parts.loops[i]] { loop->run(); });
  parts.loops[0]->run();
  for (auto& thread : threads) thread.join();
}

void HttpServer::drain(std::chrono::milliseconds deadline) { parts_->end(Loop::Clock::now() + deadline); }
void HttpServer::stop() { parts_->end(Loop::Clock::now()); }

bool HttpServer::draining() const { return parts_->shared->draining; }
void HttpServer::write_through(bool yes) { parts_->shared->write_through = yes; }
HttpStats HttpServer::stats() const { return parts_->shared->stats(); }

}  // namespace cairn::serve
