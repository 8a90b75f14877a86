// Thousands of HTTP/1.1 exchanges at once from one thread, and when each token of their streams arrived.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/url.h"

namespace boost::asio::ssl {
class context;
}

namespace cairn::load {

using Clock = std::chrono::steady_clock;

inline double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

struct Target {
  formats::Url base;  // "http://127.0.0.1:8080": what stands before "/v1/..."
  std::string api_key;
  bool verify_certificate = true;
  std::chrono::milliseconds connect_timeout{20'000};  // name, TCP and TLS
};

// Takes off a closing "/" and "/v1", as both ways of writing a base URL are common. Throws
// Error(invalid_argument).
Target parse_target(std::string_view url);

enum class Fault : uint8_t {
  none,
  connect,    // no connection, or no TLS
  timeout,    // Order::timeout passed
  closed,     // the other side ended the connection before its answer was complete
  protocol,   // not HTTP, not SSE, not JSON
  status,     // a status other than 200
  in_stream,  // an error object instead of a chunk or answer
  empty,      // a complete answer without any text
};
const char* to_string(Fault);
inline constexpr int kFaults = 8;

struct Answer {
  Fault fault = Fault::none;
  int status = 0;      // 0: no head came
  std::string detail;  // of a fault; printable
  Clock::time_point sent, first, last,
      end;             // sent: the connection was there; first and last text; everything
  int64_t events = 0;  // chunks that carried text
  int64_t prompt_tokens = -1, answer_tokens = -1, cached_tokens = -1;  // as the usage says; -1: it does not
  std::string finish_reason;
  std::string body;    // with Order::wants_body: the text of a stream, the whole body otherwise
  std::string server;  // the head's Server field
};

// Hears of each chunk with text as it arrives.
class StreamObserver {
 public:
  virtual ~StreamObserver() = default;
  // gap: since the chunk before it of the same answer; negative for the first.
  virtual void on_text(Clock::time_point now, double gap) = 0;
};

struct Order {
  std::string method = "POST";
  std::string path;  // below the base: "/v1/completions"
  std::string body;
  bool wants_body = false;
  bool reads_chunks = true;  // false: the body is not looked at
  std::chrono::milliseconds timeout{600'000};
  StreamObserver* observer = nullptr;
};

// Keeps connections that a server leaves open for the next order. Not thread-safe: all calls and callbacks
// happen on the io_context's thread. Callbacks are never called from within send().
class Client {
 public:
  using Done = std::function<void(Answer&&)>;

  Client(boost::asio::io_context&, Target);  // looks up the name; throws Error(network)
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(Order, Done);
  // Ends every exchange in progress and closes idle connections; callbacks of those exchanges are not called.
  void close();

  size_t open_connections() const;  // idle ones too
  uint64_t connections_made() const;
  const Target& target() const;
  // For clients that talk to the same server in their own way (chaos.h).
  const boost::asio::ip::tcp::endpoint& endpoint() const;

 private:
  struct State;
  friend class Connection;
  std::shared_ptr<State> state_;
};

// Runs the context until this one order is done.
Answer exchange(boost::asio::io_context&, Client&, Order);

// Lets this process open as many files as the system allows at all; returns that number.
uint64_t raise_open_files();

}  // namespace cairn::load
