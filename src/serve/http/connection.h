// One client's socket, on one I/O thread. Reads a request, lets it be answered, sends, and starts over;
// always knows whether the client is still there. Idle, it owns neither a parser nor a buffer.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "serve/http/exchange.h"
#include "serve/http/request_parser.h"
#include "serve/http/transport.h"

namespace cairn::serve {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(Loop&, boost::asio::ip::tcp::socket);
  ~Connection();

  void begin(bool refuse);
  void wake() { advance(); }          // its exchange has something to send
  void check(Clock::time_point now);  // deadlines; called a few times a second
  void drain();                       // ends now if it is idle
  void close();                       // at once; a running exchange is lost

  size_t place = 0;  // in the loop's list

 private:
  enum class State { receiving, answering, lingering, closed };

  void wait_readable();
  void wait_writable();
  void on_readable();
  void advance();
  bool receive();  // true when an exchange has begun
  bool judge_head();
  void dispatch();
  bool send();  // true when the answer is sent
  void end_exchange();
  void refuse(Exchange::Facts, int status, const char* code, const char* message, Fields headers = {});
  void answer(Exchange::Facts, HttpResponse);
  void linger();
  void log(bool gone);
  Exchange::Facts facts() const;
  void forget_request();

  Loop& loop_;
  boost::asio::ip::tcp::socket socket_;
  Transport transport_;
  State state_ = State::receiving;
  bool reading_ = false, writing_ = false;  // a wait is under way
  bool read_wants_write_ = false;           // TLS may have to write before it can read on
  bool read_ended_ = false;
  bool complete_ = false, close_after_ = false;  // of the answer
  std::string in_;                               // received and not yet used
  std::string out_;                              // taken from the exchange
  size_t out_sent_ = 0;
  double out_since_ = 0;     // see Exchange::Taken
  uint64_t bytes_sent_ = 0;  // of this exchange
  size_t body_charged_ = 0, body_at_deadline_ = 0;
  Clock::time_point deadline_, began_, last_sent_;
  std::unique_ptr<RequestParser> parser_;
  struct Pending;  // a judged head whose body is still coming
  std::unique_ptr<Pending> pending_;
  std::shared_ptr<Exchange> exchange_;
};

}  // namespace cairn::serve
