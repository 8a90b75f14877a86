// An I/O thread: its connections, and the list of those that other threads gave something to send. A burst of
// writes to a thousand streams wakes the thread once.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "serve/http/access.h"
#include "serve/http/server.h"
#include "serve/http/target.h"
#include "serve/http/transport.h"

namespace cairn::serve {

class Connection;
class Exchange;

// What all threads of a server read, and the counters they write.
struct Shared {
  Shared(HttpOptions, uint64_t id_seed);

  HttpResponse refusal(const Refusal&) const;
  std::string next_id();
  HttpStats stats() const;

  const HttpOptions options;
  const Access access;
  Router router;  // constant once the server listens
  std::unique_ptr<TlsContext> tls;
  std::atomic<bool> draining{false}, write_through{false};
  std::atomic<uint64_t> ids;

  std::atomic<uint64_t> accepted{0}, accept_errors{0}, refused_connections{0}, requests{0}, malformed{0},
      denied{0};
  std::atomic<uint64_t> answered[6]{}, gone{0}, overflowed{0}, timeouts{0}, bytes_in{0}, bytes_out{0},
      sends{0};
  std::atomic<int64_t> connections{0}, running{0}, body_bytes{0};

  void count_delivery(double since);

 private:
  mutable std::mutex delivered_mutex_;
  Histogram delivered_;
  uint64_t late_ = 0;
};

class Loop : public std::enable_shared_from_this<Loop> {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Loop(std::shared_ptr<Shared>);

  Shared& shared() const { return *shared_; }
  boost::asio::io_context& io() { return io_; }
  std::array<char, 64 << 10>& scratch() { return scratch_; }  // of the I/O thread

  // Any thread.
  void notify(std::shared_ptr<Exchange>);
  void adopt(boost::asio::ip::tcp::socket, bool refuse);  // accepted; refuse: there are too many
  void drain(
      Clock::time_point until);  // ends idle connections now, all of them then; run() returns after the last

  void run();  // the I/O thread

  // The I/O thread.
  void remove(Connection&);

 private:
  void send_pending();
  void sweep();
  void release_if_empty();

  const std::shared_ptr<Shared> shared_;
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer sweeper_;
  bool sweeping_ = false, draining_ = false;
  Clock::time_point drain_until_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::array<char, 64 << 10> scratch_;

  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> pending_;
  bool posted_ = false, over_ = false;
  std::vector<std::shared_ptr<Exchange>> sending_;  // of the I/O thread
};

}  // namespace cairn::serve
