#include "serve/http/connection.h"

#include <boost/asio/post.hpp>
#include <exception>

#include "serve/http/loop.h"
#include "serve/http/text.h"

namespace cairn::serve {
namespace {

using boost::system::error_code;
using tcp = boost::asio::ip::tcp;

constexpr size_t kReadAhead = 64 << 10;     // of requests that come before their turn
constexpr size_t kBodyPiece = 16 << 10;     // what a body must bring within HttpOptions::body_timeout
constexpr size_t kKeptBuffer = 16 << 10;    // larger buffers go back to the allocator
constexpr int kTurns = 32;                  // pipelined requests before others get their turn
constexpr std::chrono::seconds kLinger{2};  // for a client to read an answer sent before its request ended
constexpr size_t kIdLength = 128;

bool is_known_method(std::string_view method) {
  for (const char* known : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
    if (method == known) return true;
  return false;
}

bool is_sane_id(std::string_view id) {
  return !id.empty() && id.size() <= kIdLength && std::all_of(id.begin(), id.end(), [](char c) {
    return is_digit(c) || is_letter(c) || c == '-' || c == '_' || c == '.' || c == ':';
  });
}

void shrink(std::string& buffer) {
  if (buffer.empty() && buffer.capacity() > kKeptBuffer) std::string().swap(buffer);
}

}  // namespace

struct Connection::Pending {
  Exchange::Facts facts;
  HttpRequest request;
  const Handler* handler;
};

Connection::Connection(Loop& loop, tcp::socket socket)
    : loop_(loop),
      socket_(std::move(socket)),
      transport_(socket_.native_handle(), loop.shared().tls.get()),
      last_sent_(Clock::now()) {
  const auto& options = loop_.shared().options;
  deadline_ = last_sent_ + (loop.shared().tls ? options.head_timeout : options.idle_timeout);
}

Connection::~Connection() { --loop_.shared().connections; }

void Connection::begin(bool too_many) {
  if (too_many) {
    Exchange::Facts none = facts();
    refuse(std::move(none), 503, "too_many_connections",
           "The server has too many connections. Try again later.", {{"Retry-After", "1"}});
  }
  advance();
}

void Connection::wait_readable() {
  if (reading_ || read_ended_ || state_ == State::closed) return;
  reading_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
    self->reading_ = false;
    if (!error && self->state_ != State::closed) self->on_readable();
  });
}

void Connection::wait_writable() {
  if (writing_ || state_ == State::closed) return;
  writing_ = true;
  socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](error_code error) {
    self->writing_ = false;
    if (error || self->state_ == State::closed) return;
    if (std::exchange(self->read_wants_write_, false))
      self->on_readable();
    else
      self->advance();
  });
}

void Connection::on_readable() {
  auto& scratch = loop_.scratch();
  const auto got = transport_.read(scratch.data(), scratch.size());
  switch (got.status) {
    case Transport::Status::moved:
      loop_.shared().bytes_in += got.bytes;
      if (state_ != State::lingering) in_.append(scratch.data(), got.bytes);
      break;
    case Transport::Status::wants_read: break;
    case Transport::Status::wants_write:
      read_wants_write_ = true;
      wait_writable();
      return;
    case Transport::Status::ended:
      // Who closes its sending side after the request gets an answer that is on its way; nobody computes one.
      if (state_ == State::answering && exchange_->is_complete()) {
        read_ended_ = true;
        break;
      }
      close();
      return;
    case Transport::Status::broken: close(); return;
  }
  advance();
}

// Does what can be done without waiting.
void Connection::advance() {
  try {
    for (int turn = 0; state_ == State::receiving ? receive() : state_ == State::answering && send(); ++turn)
      if (turn == kTurns) {
        boost::asio::post(loop_.io(), [self = shared_from_this()] { self->advance(); });
        return;
      }
  } catch (const std::exception& error) {
    if (loop_.shared().options.on_fault) loop_.shared().options.on_fault("", error.what());
    close();
  }
  if (state_ != State::answering || in_.size() < kReadAhead) wait_readable();
}

bool Connection::receive() {
  for (;;) {
    if (!parser_) {
      if (in_.empty()) {
        shrink(in_);
        return false;
      }
      if (read_ended_) {
        close();
        return false;
      }
      const auto& options = loop_.shared().options;
      parser_ = std::make_unique<RequestParser>(options.header_bytes, options.body_bytes);
      began_ = Clock::now();
      deadline_ = began_ + options.head_timeout;
    }
    const size_t used = parser_->feed(in_);
    in_.erase(0, used);
    const size_t body = parser_->body_size();
    loop_.shared().body_bytes += int64_t(body - body_charged_);
    body_charged_ = body;
    if (parser_->state() == RequestParser::State::failed) {
      Exchange::Facts known = pending_ ? std::move(pending_->facts) : facts();
      known.keep_alive = false;
      ++loop_.shared().malformed;
      refuse(std::move(known), parser_->status(), parser_->code().data(), parser_->message().data());
      return true;
    }
    if (parser_->state() != RequestParser::State::head && !pending_) {
      if (!judge_head()) return state_ == State::answering;
    } else if (body_charged_ >= body_at_deadline_ + kBodyPiece) {
      body_at_deadline_ = body_charged_;
      deadline_ = Clock::now() + loop_.shared().options.body_timeout;
    }
    if (parser_->state() == RequestParser::State::done) {
      dispatch();
      return true;
    }
    if (pending_ && loop_.shared().body_bytes > int64_t(loop_.shared().options.all_bodies_bytes)) {
      pending_->facts.keep_alive = false;
      refuse(std::move(pending_->facts), 503, "too_many_bodies",
             "The server is reading too many large requests. Try again later.", {{"Retry-After", "1"}});
      return true;
    }
    if (used == 0 || in_.empty()) {
      shrink(in_);
      return false;
    }
  }
}

Exchange::Facts Connection::facts() const {
  Exchange::Facts facts;
  facts.id = loop_.shared().next_id();
  facts.keep_alive = false;
  facts.began = parser_ ? began_ : Clock::now();
  error_code ignored;
  const auto peer = socket_.remote_endpoint(ignored);
  if (!ignored) {
    const std::string address = peer.address().to_string();
    facts.peer = (peer.address().is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(peer.port());
  }
  return facts;
}

// Everything that is decided before a byte of the body is taken. False when the request was refused or
// answered.
bool Connection::judge_head() {
  auto& shared = loop_.shared();
  const auto& options = shared.options;
  const RequestHead& head = parser_->head();
  ++shared.requests;
  Exchange::Facts facts = this->facts();
  if (is_sane_id(head.field("X-Request-Id"))) facts.id = head.field("X-Request-Id");
  facts.method = head.method;
  facts.http10 = head.minor_version == 0;
  facts.without_body = head.method == "HEAD";
  // A refused request's body is not read, and what follows it cannot be found.
  facts.keep_alive = head.keep_alive && parser_->state() == RequestParser::State::done;
  const auto no = [&](int status, const char* code, const char* message, Fields headers = {}) {
    if (status == 401 || status == 403 || status == 421)
      ++shared.denied;
    else if (status == 400 || status == 413 || status == 501)
      ++shared.malformed;
    if (status == 400) facts.keep_alive = false;  // who writes one such request may mean more by it
    refuse(std::move(facts), status, code, message, std::move(headers));
    return false;
  };

  Target target;
  if (const char* wrong = parse_target(head.method, head.target, target))
    return no(400, "bad_request", wrong);
  facts.path = target.path;
  if (head.minor_version == 1 && head.count("Host") == 0)
    return no(400, "bad_request", "The request has no Host header.");
  const std::string_view host_field = head.field("Host");
  const std::string_view host = target.authority.empty() ? host_field : std::string_view(target.authority);
  for (const std::string_view name : {host_field, host})
    if (!name.empty() || head.minor_version == 1) {
      if (!host_name(name)) return no(400, "bad_request", "The Host header is malformed.");
      if (!shared.access.host_allowed(name))
        return no(421, "host_not_allowed", "This server does not answer to the name in the Host header.");
    }
  if (head.count("Origin") > 0) {
    if (!shared.access.origin_allowed(head.field("Origin"), host))
      return no(403, "origin_not_allowed", "Pages of this origin may not use this server.");
    facts.origin = head.field("Origin");
    if (head.method == "OPTIONS" && !head.field("Access-Control-Request-Method").empty()) {
      // A preflight: browsers send it without the key.
      Fields allowed = {{"Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"},
                        {"Access-Control-Max-Age", "600"}};
      const std::string_view wanted = head.field("Access-Control-Request-Headers");
      if (!wanted.empty()) allowed.emplace_back("Access-Control-Allow-Headers", wanted);
      answer(std::move(facts), {204, "", "", std::move(allowed)});
      return false;
    }
  }

  Router::Match match = shared.router.match(head.method, target);
  if (shared.access.needs_key()) {
    const auto client = shared.access.client(head.field("Authorization"), head.field("X-Api-Key"));
    if (client)
      facts.client = *client;
    else if (!match.is_public)
      return no(401, "invalid_api_key", "A valid API key is needed (Authorization: Bearer, or x-api-key).",
                {{"WWW-Authenticate", "Bearer"}});
  }
  if (!is_known_method(head.method))
    return no(501, "not_implemented", "This server does not know the method.");
  if (!match.handler && head.method == "OPTIONS" && (target.path == "*" || !match.allowed.empty())) {
    answer(std::move(facts),
           {204, "", "", {{"Allow", target.path == "*" ? "GET, HEAD, POST, OPTIONS" : match.allowed}}});
    return false;
  }
  if (!match.handler && !match.allowed.empty())
    return no(405, "method_not_allowed", "The path exists, but not for this method.",
              {{"Allow", match.allowed}});
  if (!match.handler) return no(404, "not_found", "There is nothing at this path.");
  if (!head.field("Expect").empty() && !head.expects_continue && head.minor_version == 1)
    return no(417, "expectation_failed", "The only expectation that can be met is 100-continue.");
  const bool may_have_body = head.method == "POST" || head.method == "PUT" || head.method == "PATCH";
  if (may_have_body && !head.has_length && !head.chunked)
    return no(411, "length_required", "The request needs a Content-Length, 0 for an empty body.");
  if (head.has_length && head.length > options.body_bytes)
    return no(413, "body_too_large", "The request's body is too large.");
  if (head.has_length && shared.body_bytes + int64_t(head.length) > int64_t(options.all_bodies_bytes))
    return no(503, "too_many_bodies", "The server is reading too many large requests. Try again later.",
              {{"Retry-After", "1"}});

  if (head.expects_continue && parser_->state() == RequestParser::State::body && in_.empty()) {
    // Nothing else is on its way to this client, so that the socket has room for a line.
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (transport_.write(kContinue).bytes != kContinue.size()) {
      close();
      return false;
    }
  }
  facts.keep_alive = head.keep_alive;
  HttpRequest request;
  request.method = facts.method;
  request.path = std::move(target.path);
  request.query = std::move(target.query);
  for (const auto& [name, value] : head.fields)
    if (!same_ignoring_case(name, "Authorization") && !same_ignoring_case(name, "X-Api-Key"))
      request.headers.emplace_back(name, value);
  request.params = std::move(match.params);
  request.id = facts.id;
  request.peer = facts.peer;
  request.client = facts.client;
  pending_.reset(new Pending{std::move(facts), std::move(request), match.handler});
  body_at_deadline_ = 0;
  deadline_ = Clock::now() + options.body_timeout;
  return true;
}

void Connection::dispatch() {
  auto& shared = loop_.shared();
  const std::unique_ptr<Pending> pending = std::move(pending_);
  pending->request.body = parser_->take_body();
  parser_.reset();
  const std::string id = pending->facts.id;
  exchange_ = std::make_shared<Exchange>(loop_.shared_from_this(), this, std::move(pending->facts));
  if (shared.write_through && !shared.tls) exchange_->write_through(socket_.native_handle());
  state_ = State::answering;
  ++shared.running;
  try {
    (*pending->handler)(std::move(pending->request), std::make_shared<Reply>(exchange_));
  } catch (const std::exception& error) {  // the reply, dropped on the way, has answered 500
    if (shared.options.on_fault) shared.options.on_fault(id, error.what());
  }
}

void Connection::refuse(Exchange::Facts facts, int status, const char* code, const char* message,
                        Fields headers) {
  HttpResponse response =
      loop_.shared().refusal({status, code, message, facts.path == "-" ? "" : facts.path});
  for (auto& field : headers) response.headers.push_back(std::move(field));
  answer(std::move(facts), std::move(response));
}

void Connection::answer(Exchange::Facts facts, HttpResponse response) {
  pending_.reset();
  if (parser_ && parser_->state() == RequestParser::State::done) parser_.reset();
  exchange_ = std::make_shared<Exchange>(loop_.shared_from_this(), this, std::move(facts));
  state_ = State::answering;
  ++loop_.shared().running;
  exchange_->respond(std::move(response));
}

bool Connection::send() {
  auto& shared = loop_.shared();
  for (;;) {
    if (exchange_->is_cut()) {
      error_code ignored;
      socket_.set_option(tcp::socket::linger(true, 0), ignored);  // the kernel need not keep its bytes either
      close();
      return false;
    }
    if (out_sent_ == out_.size()) {
      out_.clear();
      out_sent_ = 0;
      if (!complete_) {
        const auto taken = exchange_->take(out_);
        complete_ = taken.complete;
        close_after_ = taken.close;
        out_since_ = taken.since;
      }
      if (out_.empty()) {
        shrink(out_);
        if (!complete_) return false;
        end_exchange();
        return true;
      }
      last_sent_ = Clock::now();
    }
    const auto moved = transport_.write(std::string_view(out_).substr(out_sent_));
    switch (moved.status) {
      case Transport::Status::moved:
        ++shared.sends;
        shared.bytes_out += moved.bytes;
        bytes_sent_ += moved.bytes;
        out_sent_ += moved.bytes;
        exchange_->sent(moved.bytes);
        if (out_since_ > 0 && out_sent_ == out_.size()) shared.count_delivery(out_since_);
        last_sent_ = Clock::now();
        break;
      case Transport::Status::wants_write: wait_writable(); return false;
      case Transport::Status::wants_read: return false;  // on_readable() comes back here
      default: close(); return false;
    }
  }
}

void Connection::end_exchange() {
  log(false);
  const bool unread = parser_ != nullptr;
  forget_request();
  if (close_after_ || unread || read_ended_ || loop_.shared().draining) {
    linger();
    return;
  }
  state_ = State::receiving;
  deadline_ = Clock::now() + loop_.shared().options.idle_timeout;
}

void Connection::log(bool gone) {
  auto& shared = loop_.shared();
  const auto& facts = exchange_->facts();
  const int status = exchange_->status();
  --shared.running;
  shared.gone += gone;
  if (status > 0) ++shared.answered[std::min(status / 100, 5)];
  if (!shared.options.on_access) return;
  const std::chrono::duration<double, std::milli> took = Clock::now() - facts.began;
  shared.options.on_access({facts.id, facts.peer, facts.client, facts.method, facts.path,
                            status > 0 ? status : 499, bytes_sent_ + exchange_->written_through(),
                            took.count(), gone});
}

void Connection::forget_request() {
  if (exchange_) exchange_->connection = nullptr;
  exchange_.reset();
  parser_.reset();
  pending_.reset();
  loop_.shared().body_bytes -= int64_t(body_charged_);
  body_charged_ = 0;
  bytes_sent_ = 0;
  complete_ = false;
}

// Closing a socket that still has unread bytes makes the kernel throw away an answer that is under way.
void Connection::linger() {
  if (read_ended_) {
    close();
    return;
  }
  transport_.end_sending();
  state_ = State::lingering;
  std::string().swap(in_);
  deadline_ = Clock::now() + kLinger;
}

void Connection::check(Clock::time_point now) {
  auto& shared = loop_.shared();
  const auto& options = shared.options;
  switch (state_) {
    case State::receiving:
      if (now < deadline_) return;
      if (!parser_ || !parser_->started()) return close();
      ++shared.timeouts;
      ++shared.malformed;
      {
        Exchange::Facts known = pending_ ? std::move(pending_->facts) : facts();
        known.keep_alive = false;
        refuse(std::move(known), 408, "request_timeout", "The request did not arrive in time.");
      }
      return advance();
    case State::answering:
      if (out_sent_ < out_.size()) {
        if (now - last_sent_ < options.write_timeout) return;
        ++shared.timeouts;
        return close();
      }
      if (now - last_sent_ >= options.comment_interval)
        exchange_->comment_if_silent(now - options.comment_interval);
      if (!reading_ && transport_.hung_up()) close();  // it reads no more, so that nothing else would tell
      return;
    case State::lingering:
      if (now >= deadline_) close();
      return;
    case State::closed: return;
  }
}

void Connection::drain() {
  if (state_ == State::receiving && !parser_) close();
}

void Connection::close() {
  if (state_ == State::closed) return;
  const auto self = shared_from_this();
  state_ = State::closed;
  if (exchange_) {
    exchange_->lose();
    log(true);
  }
  forget_request();
  error_code ignored;
  socket_.close(ignored);
  loop_.remove(*this);
}

}  // namespace cairn::serve
