#include "serve/http/exchange.h"

#include <fmt/format.h>

#include <sys/socket.h>

#include <cassert>
#include <ctime>
#include <utility>

#include "serve/http/loop.h"
#include "serve/http/text.h"

namespace cairn::serve {
namespace {

// Values come from handlers, which may have copied them from a request: a line break would be a header of the
// client's choice.
void append_field(std::string& head, std::string_view name, std::string_view value) {
  head += name;
  head += ": ";
  for (const char c : value) head += uint8_t(c) < 0x20 || c == 0x7f ? ' ' : c;
  head += "\r\n";
}

void append_date(std::string& head) {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t now = time(nullptr);
  tm utc{};
  gmtime_r(&now, &utc);
  fmt::format_to(std::back_inserter(head), "Date: {}, {:02} {} {} {:02}:{:02}:{:02} GMT\r\n",
                 kDays[utc.tm_wday], utc.tm_mday, kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour,
                 utc.tm_min, utc.tm_sec);
}

bool has_no_body(int status) { return status / 100 == 1 || status == 204 || status == 304; }

}  // namespace

const char* reason_phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    case 529: return "Overloaded";
    default: return status < 400 ? "OK" : "Error";
  }
}

Exchange::Exchange(std::shared_ptr<Loop> loop, Connection* owner, Facts facts)
    : connection(owner), facts_(std::move(facts)), loop_(std::move(loop)) {}

void Exchange::begin_head(std::string& head, int status, std::string_view content_type,
                          const Fields& fields) {
  assert(status >= 200 && status <= 599);
  status_ = status;
  close_ = close_ || !facts_.keep_alive || loop_->shared().draining;
  fmt::format_to(std::back_inserter(head), "HTTP/1.1 {} {}\r\n", status, reason_phrase(status));
  append_date(head);
  append_field(head, "X-Request-Id", facts_.id);
  if (!content_type.empty()) append_field(head, "Content-Type", content_type);
  head += "X-Content-Type-Options: nosniff\r\n";
  if (!facts_.origin.empty()) {
    append_field(head, "Access-Control-Allow-Origin", facts_.origin);
    head += "Vary: Origin\r\nAccess-Control-Expose-Headers: X-Request-Id, Retry-After\r\n";
  }
  for (const auto& [name, value] : fields) {
    // How the message is framed is decided here alone.
    if (!is_token(name) || same_ignoring_case(name, "Content-Length") ||
        same_ignoring_case(name, "Connection") || same_ignoring_case(name, "Transfer-Encoding"))
      continue;
    append_field(head, name, value);
  }
}

void Exchange::respond(HttpResponse response) {
  std::function<void()> forgotten;  // destroyed without the lock: it may own anything
  std::unique_lock lock(mutex_);
  if (gone_) return;
  assert(state_ == State::waiting);
  if (state_ != State::waiting) return;
  out_.reserve(out_.size() + 512 + response.body.size());
  begin_head(out_, response.status, response.content_type, response.headers);
  const bool bodiless = has_no_body(response.status);
  if (!bodiless) fmt::format_to(std::back_inserter(out_), "Content-Length: {}\r\n", response.body.size());
  if (close_)
    out_ += "Connection: close\r\n";
  else if (facts_.http10)
    out_ += "Connection: keep-alive\r\n";
  out_ += "\r\n";
  if (!bodiless && !facts_.without_body) out_ += response.body;
  state_ = State::complete;
  forgotten.swap(on_gone_);
  wake(lock);
}

void Exchange::start(int status, std::string_view content_type, const Fields& headers) {
  std::unique_lock lock(mutex_);
  if (gone_) return;
  assert(state_ == State::waiting && !has_no_body(status));
  if (state_ != State::waiting) return;
  if (facts_.http10) close_ = true;  // which has no chunks: the body ends where the connection does
  begin_head(out_, status, content_type, headers);
  events_ = same_ignoring_case(content_type.substr(0, 17), "text/event-stream");
  // A proxy that collects the answer before passing it on would undo the stream.
  if (events_) out_ += "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  chunked_ = !facts_.http10;
  if (chunked_) out_ += "Transfer-Encoding: chunked\r\n";
  if (close_) out_ += "Connection: close\r\n";
  out_ += "\r\n";
  state_ = State::streaming;
  wake(lock);
}

void Exchange::append_chunk(std::string_view bytes) {
  if (bytes.empty() || facts_.without_body) return;  // an empty chunk would be the last
  if (chunked_) {
    char size[16];
    char* digit = size + sizeof size;
    *--digit = '\n';
    *--digit = '\r';
    for (size_t n = bytes.size(); n > 0; n >>= 4) *--digit = "0123456789abcdef"[n & 15];
    out_.append(digit, size_t(size + sizeof size - digit));
  }
  out_ += bytes;
  if (chunked_) out_ += "\r\n";
}

bool Exchange::write(std::string_view bytes, double since) {
  std::unique_lock lock(mutex_);
  if (gone_ || cut_ || state_ == State::complete) return false;
  assert(state_ == State::streaming);
  if (state_ != State::streaming) return false;
  if (out_.size() + unsent_ + bytes.size() > loop_->shared().options.write_queue_bytes) {
    cut_ = true;
    ++loop_->shared().overflowed;
    std::string().swap(out_);
    awake_ = false;  // the I/O thread may be waiting for the socket instead of taking bytes
    wake(lock);
    return false;
  }
  const bool first = out_.empty() && unsent_ == 0;
  append_chunk(bytes);
  if (first && socket_ >= 0 && send_now(since)) return true;
  if (since_ == 0) since_ = since;
  wake(lock);
  return true;
}

// From the thread that writes, while the I/O thread has nothing of this stream in its hands. False when some
// of it, or what is wrong with the socket, is left to that thread.
bool Exchange::send_now(double since) {
  const ssize_t sent = ::send(socket_, out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent <= 0) return false;
  auto& shared = loop_->shared();
  ++shared.sends;
  shared.bytes_out += uint64_t(sent);
  written_through_ += uint64_t(sent);
  last_through_ = std::chrono::steady_clock::now();
  out_.erase(0, size_t(sent));  // keeps its memory for the next
  if (!out_.empty()) return false;
  if (since > 0) shared.count_delivery(since);
  return true;
}

void Exchange::finish() {
  std::function<void()> forgotten;
  std::unique_lock lock(mutex_);
  if (gone_ || cut_ || state_ == State::complete) return;
  assert(state_ == State::streaming);
  if (state_ != State::streaming) return;
  if (chunked_ && !facts_.without_body) out_ += "0\r\n\r\n";
  state_ = State::complete;
  forgotten.swap(on_gone_);
  wake(lock);
}

// Once per batch: until the I/O thread has taken the bytes, further ones need no further call.
void Exchange::wake(std::unique_lock<std::mutex>& lock) {
  if (awake_) return;
  awake_ = true;
  lock.unlock();
  loop_->notify(shared_from_this());
}

void Exchange::on_gone(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::complete && !gone_) return;
    if (!gone_) {
      on_gone_ = std::move(call);
      return;
    }
  }
  call();
}

void Exchange::abandon(bool while_throwing) {
  {
    std::function<void()> forgotten;
    std::unique_lock lock(mutex_);
    if (gone_ || state_ == State::complete) return;
    if (state_ == State::streaming) {
      // What is queued still goes out, the last chunk does not: the client sees that the stream broke off.
      state_ = State::complete;
      close_ = true;
      forgotten.swap(on_gone_);
      wake(lock);
      return;
    }
  }
  if (!while_throwing && loop_->shared().options.on_fault)
    loop_->shared().options.on_fault(facts_.id, "a handler dropped its reply without answering");
  respond(loop_->shared().refusal({500, "internal_error", "The server failed to answer.", facts_.path}));
}

bool Exchange::gone() const {
  const std::lock_guard lock(mutex_);
  return gone_ || cut_;
}

size_t Exchange::queued() const {
  const std::lock_guard lock(mutex_);
  return out_.size() + unsent_;
}

Exchange::Taken Exchange::take(std::string& into) {
  const std::lock_guard lock(mutex_);
  awake_ = false;
  if (into.empty())
    into.swap(out_);
  else
    into += out_;
  out_.clear();
  unsent_ = into.size();
  return {state_ == State::complete, close_, std::exchange(since_, 0)};
}

void Exchange::sent(size_t bytes) {
  const std::lock_guard lock(mutex_);
  unsent_ -= bytes;
}

void Exchange::lose() {
  std::function<void()> call;
  {
    const std::lock_guard lock(mutex_);
    if (gone_) return;
    gone_ = true;
    unsent_ = 0;
    socket_ = -1;
    std::string().swap(out_);
    call.swap(on_gone_);
  }
  if (call) call();
}

void Exchange::write_through(int socket) {
  const std::lock_guard lock(mutex_);
  if (!gone_) socket_ = socket;
}

uint64_t Exchange::written_through() const {
  const std::lock_guard lock(mutex_);
  return written_through_;
}

void Exchange::comment_if_silent(std::chrono::steady_clock::time_point since) {
  std::unique_lock lock(mutex_);
  if (last_through_ > since || gone_ || state_ != State::streaming || !events_ || !out_.empty() ||
      unsent_ > 0)
    return;
  append_chunk(": keep-alive\n\n");
  wake(lock);
}

bool Exchange::is_complete() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::complete;
}

int Exchange::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace cairn::serve
