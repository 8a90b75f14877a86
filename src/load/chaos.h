// Clients that misbehave, beside well-behaved ones that should not notice.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "load/client.h"
#include "load/prompts.h"

namespace cairn::load {

enum class Mischief : uint8_t {
  leave,      // goes away at a random moment of an answer, half of the time with a reset
  half_head,  // sends a part of a request's head, waits, goes away
  half_body,  // promises a body and sends a part of it
  malformed,  // a body that is no valid request; an answer of 4xx is right
  garbage,    // bytes that are not HTTP
  slow,       // asks for a long answer and hardly reads it
};
inline constexpr int kMischiefs = 6;
const char* to_string(Mischief);

// "leave,slow"; empty: all. Throws Error(invalid_argument).
std::vector<Mischief> parse_mischiefs(const std::string& text);

struct ChaosOptions {
  int64_t clients = 4;          // misbehaving at any time, each with one kind after the other
  int64_t idle = 0;             // connections besides that never send anything
  std::vector<Mischief> kinds;  // in turn
  double patience = 2;          // seconds that half requests and silent servers are waited for
  uint64_t seed = 0;
};

// What the server did about one kind.
struct Tally {
  int64_t tried = 0;
  int64_t refused = 0;       // no connection
  int64_t answered[6] = {};  // by first digit of the status
  int64_t closed = 0;        // the server ended the connection without an answer
  int64_t left = 0;          // we went away first, as planned or for lack of patience
};

// Plain http only: what is tested are the server's limits, not its TLS library. Not thread-safe.
class Chaos {
 public:
  // `client` tells where the server is; style and alphabet what a valid request looks like.
  Chaos(boost::asio::io_context&, const Client& client, const RequestStyle&, const Alphabet&, ChaosOptions);
  ~Chaos();
  Chaos(const Chaos&) = delete;
  Chaos& operator=(const Chaos&) = delete;

  void start();  // goes on until stop(), while the context runs
  void stop();

  const Tally& tally(Mischief) const;
  int64_t idle_open() const;  // of the idle connections, those that the server has not closed
  int64_t idle_opened() const;
  std::vector<std::string> server_errors() const;  // malformed bodies that were answered with 5xx, each once

 private:
  struct State;
  friend class Troublemaker;
  std::shared_ptr<State> state_;
};

}  // namespace cairn::load
