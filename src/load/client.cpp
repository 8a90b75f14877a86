#include "load/client.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <list>
#include <optional>
#include <unordered_set>

#include "base/error.h"
#include "formats/untrusted_text.h"
#include "load/chunk.h"
#include "load/response_reader.h"
#include "load/sse.h"

namespace cairn::load {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kSweep = std::chrono::milliseconds(50);  // how late a timeout may be seen
constexpr size_t kMostBody = size_t{64} << 20;

// The address as a Host field wants it.
std::string host_field(const formats::Url& url) {
  const std::string host = url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
  return url.port == (url.scheme == "https" ? "443" : "80") ? host : host + ":" + url.port;
}

}  // namespace

class Connection;

struct Client::State : std::enable_shared_from_this<Client::State> {
  State(asio::io_context& context, Target to) : io(context), target(std::move(to)), sweeper(io) {
    if (target.base.scheme == "https") {
      tls.emplace(asio::ssl::context::tls_client);
      SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
      error_code ignored;
      tls->set_default_verify_paths(ignored);
      tls->set_verify_mode(target.verify_certificate ? asio::ssl::verify_peer : asio::ssl::verify_none);
    }
    head = "Host: " + host_field(target.base) + "\r\nUser-Agent: cairn-bench/" CAIRN_VERSION "\r\n";
    if (!target.api_key.empty()) head += "Authorization: Bearer " + target.api_key + "\r\n";
  }

  void sweep();

  asio::io_context& io;
  Target target;
  std::optional<asio::ssl::context> tls;
  tcp::endpoint address;
  std::string head;  // fields that every request has
  asio::steady_timer sweeper;
  bool sweeping = false, closed = false;
  std::unordered_set<std::shared_ptr<Connection>> busy;
  std::vector<std::shared_ptr<Connection>> idle;  // the latest used last
  uint64_t made = 0;
};

// One connection and the exchange that it carries, if any.
class Connection final : public std::enable_shared_from_this<Connection>, public ResponseReader::Listener {
 public:
  explicit Connection(Client::State& state) : state_(state.weak_from_this()), socket_(state.io) {}

  void begin(Order order, Client::Done done) {
    order_ = std::move(order);
    done_ = std::move(done);
    answer_ = {};
    reader_.emplace(*this);
    sse_.emplace();
    stream_ = finished_ = closing_ = got_bytes_ = got_done_mark_ = false;
    begin_ = filled_ = 0;
    const auto state = state_.lock();
    request_ = order_.method + " " + state->target.base.target + order_.path + " HTTP/1.1\r\n" + state->head;
    if (order_.method == "POST" || !order_.body.empty())
      request_ +=
          "Content-Type: application/json\r\nContent-Length: " + std::to_string(order_.body.size()) + "\r\n";
    request_ += "\r\n";
    request_ += order_.body;
    deadline_ = Clock::now() + order_.timeout;
    reused_ = ready_;
    if (ready_) return send();
    connect_deadline_ = Clock::now() + state->target.connect_timeout;
    socket_.async_connect(state->address, [self = shared_from_this()](error_code error) {
      if (self->done_) self->connected(error);
    });
  }

  // An idle connection that the server has closed in the meantime, or that has bytes nobody asked for (under
  // TLS those may be session tickets).
  bool stale() {
    char byte;
    const auto got = ::recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got > 0) return !secure_;
    return got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
  }

  void check_time(Clock::time_point now) {
    if (!done_) return;
    if (!ready_ && now >= connect_deadline_) return end(Fault::connect, "connecting took too long");
    if (now >= deadline_) end(Fault::timeout, "the answer took too long");
  }

  void close() {
    done_ = nullptr;
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  void connected(error_code error) {
    if (error) return end(Fault::connect, error.message());
    const auto state = state_.lock();
    ++state->made;
    socket_.set_option(tcp::no_delay(true), error);
    if (!state->tls) {
      ready_ = true;
      return send();
    }
    secure_.emplace(socket_, *state->tls);
    const auto& host = state->target.base.host;
    error_code not_an_address;
    asio::ip::make_address(host, not_an_address);
    if (not_an_address) SSL_set_tlsext_host_name(secure_->native_handle(), host.c_str());
    if (state->target.verify_certificate)
      secure_->set_verify_callback(asio::ssl::host_name_verification(host));
    secure_->async_handshake(asio::ssl::stream_base::client, [self = shared_from_this()](error_code failed) {
      if (!self->done_) return;
      if (failed) return self->end(Fault::connect, "TLS: " + failed.message());
      self->ready_ = true;
      self->send();
    });
  }

  void send() {
    answer_.sent = Clock::now();
    writing_ = true;
    auto written = [self = shared_from_this()](error_code error, size_t) {
      self->writing_ = false;
      // The other side may refuse a long body without reading it: what it answers says more than this error,
      // and reading ends the exchange when there is no answer.
      if (error) self->closing_ = true;
    };
    if (secure_)
      asio::async_write(*secure_, asio::buffer(request_), written);
    else
      asio::async_write(socket_, asio::buffer(request_), written);
    read();
  }

  void read() {
    if (begin_ == filled_) begin_ = filled_ = 0;
    if (filled_ == buffer_.size()) {
      if (begin_ == 0) return end(Fault::protocol, "a head or chunk head without end");
      std::copy(buffer_.begin() + std::ptrdiff_t(begin_), buffer_.begin() + std::ptrdiff_t(filled_),
                buffer_.begin());
      filled_ -= begin_;
      begin_ = 0;
    }
    const auto space = asio::buffer(buffer_.data() + filled_, buffer_.size() - filled_);
    auto got = [self = shared_from_this()](error_code error, size_t bytes) {
      if (self->done_) self->received(error, bytes);
    };
    if (secure_)
      secure_->async_read_some(space, got);
    else
      socket_.async_read_some(space, got);
  }

  void received(error_code error, size_t bytes) {
    now_ = Clock::now();
    if (error) return ended(error);
    got_bytes_ = true;
    filled_ += bytes;
    while (begin_ < filled_ && !reader_->is_done()) {
      error_code problem;
      const size_t used = reader_->put(asio::buffer(buffer_.data() + begin_, filled_ - begin_), problem);
      begin_ += used;
      if (!done_) return;  // ended by what was read
      if (problem == http::error::need_more) break;
      if (problem) return end(Fault::protocol, "not HTTP: " + problem.message());
      if (used == 0) break;
      if (reader_->is_done() && reader_->status() / 100 == 1) reader_.emplace(*this);  // an interim answer
    }
    if (reader_->is_done()) return finished();
    read();
  }

  void ended(error_code error) {
    const bool plain_end = error == asio::error::eof || error == asio::ssl::error::stream_truncated;
    if (plain_end && got_bytes_ && reader_->is_header_done()) {
      error_code problem;
      reader_->put_eof(problem);
      closing_ = true;
      if (!problem && reader_->is_done()) return finished();
    }
    if (reused_ && !got_bytes_) return again();
    end(Fault::closed,
        got_bytes_ ? "the connection ended before the answer did" : "the connection ended without an answer");
  }

  // A kept connection may end between two exchanges through nobody's fault: once more on a new one.
  void again() {
    const auto state = state_.lock();
    const auto self = shared_from_this();
    state->busy.erase(self);
    auto fresh = std::make_shared<Connection>(*state);
    state->busy.insert(fresh);
    auto done = std::move(done_);
    close();
    fresh->begin(std::move(order_), std::move(done));
  }

  void on_body(std::string_view bytes) override {
    if (!done_ || !order_.reads_chunks) return keep(bytes);
    if (reader_->status() == 200 && reader_->content_type().rfind("text/event-stream", 0) == 0) {
      stream_ = true;
      const bool fits = sse_->add(bytes, [this](std::string_view type, std::string_view data) {
        if (done_) event(type, data);
      });
      if (!fits && done_) end(Fault::protocol, "an event without end");
      return;
    }
    keep(bytes);
  }

  void keep(std::string_view bytes) {
    if (done_ && answer_.body.size() + bytes.size() > kMostBody)
      return end(Fault::protocol, "an answer of more than 64 MiB");
    answer_.body += bytes;
  }

  void event(std::string_view type, std::string_view data) {
    if (data == "[DONE]") {
      got_done_mark_ = true;
      return;
    }
    Chunk chunk;
    if (!read_chunk(data, chunk))
      return end(Fault::protocol, "an event that is not JSON: " + formats::shown(data, 80));
    if (type == "error" && chunk.error.empty()) chunk.error = "error";
    note(chunk);
  }

  void note(Chunk& chunk) {
    if (!chunk.error.empty()) return end(Fault::in_stream, formats::shown(chunk.error));
    if (chunk.prompt_tokens >= 0) answer_.prompt_tokens = chunk.prompt_tokens;
    if (chunk.answer_tokens >= 0) answer_.answer_tokens = chunk.answer_tokens;
    if (chunk.cached_tokens >= 0) answer_.cached_tokens = chunk.cached_tokens;
    if (!chunk.finish_reason.empty()) answer_.finish_reason = std::move(chunk.finish_reason);
    if (chunk.text_bytes == 0) return;
    const double gap = answer_.events > 0 ? seconds_between(answer_.last, now_) : -1;
    if (answer_.events++ == 0) answer_.first = now_;
    answer_.last = now_;
    if (stream_ && order_.wants_body) answer_.body += chunk.text;
    if (order_.observer) order_.observer->on_text(now_, gap);
  }

  void finished() {
    finished_ = true;
    if (!reader_->keep_alive()) closing_ = true;
    // An answer that comes before the whole request was sent leaves the connection in no state to be used.
    if (writing_) closing_ = true;
    complete();
  }

  void complete() {
    answer_.status = reader_->status();
    if (answer_.status != 200 && order_.reads_chunks) {
      Chunk chunk;
      const bool json = read_chunk(answer_.body, chunk) && !chunk.error.empty();
      return end(Fault::status, formats::shown(json ? chunk.error : answer_.body));
    }
    if (order_.reads_chunks) {
      if (!stream_) {
        Chunk chunk;
        if (!read_chunk(answer_.body, chunk)) return end(Fault::protocol, "an answer that is not JSON");
        note(chunk);
        if (!done_) return;
        answer_.body = order_.wants_body ? std::move(chunk.text) : std::string();
      } else if (!got_done_mark_ && answer_.finish_reason.empty()) {
        return end(Fault::closed, "the stream ended without a finish_reason");
      }
      if (answer_.events == 0) return end(Fault::empty, "a complete answer without any text");
    }
    end(Fault::none, "");
  }

  void end(Fault fault, std::string detail) {
    answer_.fault = fault;
    answer_.detail = std::move(detail);
    answer_.end = Clock::now();
    answer_.status = reader_ ? reader_->status() : 0;
    if (reader_) answer_.server = reader_->server();
    if (!ready_) answer_.sent = answer_.end;
    auto done = std::move(done_);
    done_ = nullptr;
    const auto self = shared_from_this();
    const auto state = state_.lock();
    state->busy.erase(self);
    // Kept open only where both sides stand between two messages.
    if (finished_ && !closing_ && begin_ == filled_ &&
        (fault == Fault::none || fault == Fault::status || fault == Fault::empty)) {
      state->idle.push_back(self);
    } else {
      close();
    }
    done(std::move(answer_));
  }

  std::weak_ptr<Client::State> state_;
  tcp::socket socket_;
  std::optional<asio::ssl::stream<tcp::socket&>> secure_;
  bool ready_ = false;  // connected, TLS too
  std::array<char, 16384> buffer_;
  size_t begin_ = 0, filled_ = 0;

  // Of the current exchange; done_ is empty between two.
  Order order_;
  Client::Done done_;
  Answer answer_;
  std::string request_;
  std::optional<ResponseReader> reader_;
  std::optional<SseParser> sse_;
  Clock::time_point deadline_, connect_deadline_, now_;
  bool reused_ = false, got_bytes_ = false, writing_ = false, finished_ = false, closing_ = false;
  bool stream_ = false, got_done_mark_ = false;
};

// One timer for all: an own one per exchange would cost more than the exchange.
void Client::State::sweep() {
  if (sweeping || closed) return;
  sweeping = true;
  sweeper.expires_after(kSweep);
  sweeper.async_wait([weak = weak_from_this()](error_code error) {
    const auto state = weak.lock();
    if (!state) return;
    state->sweeping = false;
    if (error || state->closed) return;
    const auto now = Clock::now();
    const std::vector<std::shared_ptr<Connection>> all(state->busy.begin(), state->busy.end());
    for (const auto& connection : all) connection->check_time(now);
    if (!state->busy.empty()) state->sweep();
  });
}

Client::Client(asio::io_context& io, Target target) : state_(std::make_shared<State>(io, std::move(target))) {
  error_code error;
  const auto& base = state_->target.base;
  const auto found = tcp::resolver(io).resolve(base.host, base.port, error);
  if (error || found.empty())
    fail(ErrorKind::network, "{}: there is no such host: {}", base.origin(), formats::shown(error.message()));
  // The first address that answers; all exchanges use it.
  for (const auto& entry : found) {
    state_->address = entry.endpoint();
    tcp::socket probe(io);
    probe.connect(state_->address, error);
    if (!error) return;
  }
  fail(ErrorKind::network, "{}: no server answers there: {}", base.origin(), formats::shown(error.message()));
}

Client::~Client() { close(); }

void Client::send(Order order, Done done) {
  std::shared_ptr<Connection> connection;
  while (!connection && !state_->idle.empty()) {
    connection = std::move(state_->idle.back());
    state_->idle.pop_back();
    if (!connection->stale()) break;
    connection->close();
    connection = nullptr;
  }
  if (!connection) connection = std::make_shared<Connection>(*state_);
  state_->busy.insert(connection);
  connection->begin(std::move(order), std::move(done));
  state_->sweep();
}

void Client::close() {
  state_->closed = true;
  state_->sweeper.cancel();
  for (const auto& connection : std::exchange(state_->busy, {})) connection->close();
  for (const auto& connection : std::exchange(state_->idle, {})) connection->close();
}

size_t Client::open_connections() const { return state_->busy.size() + state_->idle.size(); }
uint64_t Client::connections_made() const { return state_->made; }
const Target& Client::target() const { return state_->target; }
const tcp::endpoint& Client::endpoint() const { return state_->address; }

Answer exchange(asio::io_context& io, Client& client, Order order) {
  std::optional<Answer> result;
  client.send(std::move(order), [&](Answer&& answer) { result = std::move(answer); });
  io.restart();
  while (!result && io.run_one() > 0) {
  }
  return std::move(*result);
}

Target parse_target(std::string_view url) {
  Target target;
  target.base = formats::parse_url(url.find("://") == url.npos ? "http://" + std::string(url) : url);
  auto& path = target.base.target;
  if (path.find('?') != path.npos)
    fail(ErrorKind::invalid_argument, "{}: the base of an API has no query", formats::shown(url));
  while (!path.empty() && path.back() == '/') path.pop_back();
  if (path.size() >= 3 && path.compare(path.size() - 3, 3, "/v1") == 0) path.resize(path.size() - 3);
  return target;
}

const char* to_string(Fault fault) {
  switch (fault) {
    case Fault::none: return "none";
    case Fault::connect: return "connect";
    case Fault::timeout: return "timeout";
    case Fault::closed: return "closed";
    case Fault::protocol: return "protocol";
    case Fault::status: return "status";
    case Fault::in_stream: return "in_stream";
    case Fault::empty: return "empty";
  }
  return "?";
}

uint64_t raise_open_files() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

}  // namespace cairn::load
