#include "serve/http/loop.h"

#include <fmt/format.h>

#include <boost/asio/post.hpp>

#include "base/steady_seconds.h"
#include "serve/http/connection.h"
#include "serve/http/exchange.h"

namespace cairn::serve {
namespace {

using boost::system::error_code;

// Deadlines are looked at this often: a quarter of the shortest, between 5 and 250 ms.
std::chrono::milliseconds sweep_interval(const HttpOptions& options) {
  const auto shortest = std::min({options.idle_timeout, options.head_timeout, options.body_timeout,
                                  options.write_timeout, options.comment_interval});
  return std::clamp(shortest / 4, std::chrono::milliseconds(5), std::chrono::milliseconds(250));
}

}  // namespace

Shared::Shared(HttpOptions wanted, uint64_t id_seed)
    : options(std::move(wanted)), access(options), ids(id_seed) {
  if (!options.tls_certificate.empty())
    tls = std::make_unique<TlsContext>(options.tls_certificate, options.tls_key);
}

HttpResponse Shared::refusal(const Refusal& refusal) const {
  HttpResponse response;
  if (options.refusal_body)
    response = options.refusal_body(refusal);
  else
    response.body = fmt::format("{{\"error\": {{\"code\": \"{}\", \"message\": \"{}\"}}}}\n", refusal.code,
                                refusal.message);
  response.status = refusal.status;
  return response;
}

std::string Shared::next_id() {
  // splitmix64: distinct for distinct counters, and the next one cannot be read off this one at a glance.
  uint64_t x = ids.fetch_add(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return fmt::format("req-{:016x}", x ^ (x >> 31));
}

HttpStats Shared::stats() const {
  HttpStats stats;
  stats.accepted = accepted;
  stats.accept_errors = accept_errors;
  stats.refused_connections = refused_connections;
  stats.requests = requests;
  stats.malformed = malformed;
  stats.denied = denied;
  for (int i = 0; i < 6; ++i) stats.answered[i] = answered[i];
  stats.gone = gone;
  stats.overflowed = overflowed;
  stats.timeouts = timeouts;
  stats.bytes_in = bytes_in;
  stats.bytes_out = bytes_out;
  stats.sends = sends;
  stats.connections = connections;
  stats.running = running;
  stats.body_bytes = body_bytes;
  const std::lock_guard lock(delivered_mutex_);
  stats.delivered = delivered_;
  stats.late = late_;
  return stats;
}

void Shared::count_delivery(double since) {
  const double seconds = steady_seconds() - since;
  const std::lock_guard lock(delivered_mutex_);
  delivered_.add(seconds);
  late_ += seconds > HttpStats::kLate;
}

Loop::Loop(std::shared_ptr<Shared> shared)
    : shared_(std::move(shared)), work_(boost::asio::make_work_guard(io_)), sweeper_(io_) {}

void Loop::run() {
  for (bool ran = false; !ran;) try {
      io_.run();
      ran = true;
    } catch (const std::exception& error) {  // no memory for a connection: the others go on
      if (shared_->options.on_fault) shared_->options.on_fault("", error.what());
    }
  // Threads that still hold a Reply must not leave it here for ever.
  std::vector<std::shared_ptr<Exchange>> left;
  const std::lock_guard lock(mutex_);
  over_ = true;
  left.swap(pending_);
}

void Loop::notify(std::shared_ptr<Exchange> exchange) {
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    pending_.push_back(std::move(exchange));
    if (posted_) return;
    posted_ = true;
  }
  boost::asio::post(io_, [this] { send_pending(); });
}

void Loop::send_pending() {
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
    sending_.swap(pending_);
  }
  for (auto& exchange : sending_) {
    if (exchange->connection) exchange->connection->wake();
    exchange.reset();
  }
  sending_.clear();
}

void Loop::adopt(boost::asio::ip::tcp::socket socket, bool refuse) {
  boost::asio::post(io_, [this, socket = std::move(socket), refuse]() mutable {
    const auto connection = std::make_shared<Connection>(*this, std::move(socket));
    if (draining_) return;
    connection->place = connections_.size();
    connections_.push_back(connection);
    if (!sweeping_) sweep();
    connection->begin(refuse);
  });
}

void Loop::remove(Connection& connection) {
  const size_t place = connection.place;
  connections_[place].swap(connections_.back());
  connections_[place]->place = place;
  connections_.pop_back();
  release_if_empty();
}

void Loop::sweep() {
  const auto now = Clock::now();
  if (draining_ && now >= drain_until_)
    while (!connections_.empty()) connections_.back()->close();
  for (size_t i = connections_.size(); i-- > 0;) connections_[i]->check(now);
  sweeping_ = !connections_.empty();
  if (!sweeping_) return;
  sweeper_.expires_after(sweep_interval(shared_->options));
  sweeper_.async_wait([this](error_code error) {
    if (!error) sweep();
  });
}

void Loop::drain(Clock::time_point until) {
  boost::asio::post(io_, [this, until] {
    drain_until_ = draining_ ? std::min(drain_until_, until) : until;
    draining_ = true;
    for (size_t i = connections_.size(); i-- > 0;) connections_[i]->drain();
    if (Clock::now() >= until)
      while (!connections_.empty()) connections_.back()->close();
    release_if_empty();
  });
}

void Loop::release_if_empty() {
  if (!draining_ || !connections_.empty()) return;
  sweeper_.cancel();
  work_.reset();
}

}  // namespace cairn::serve
