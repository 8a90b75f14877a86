// Plays sessions against a server and records what each request met with.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "load/client.h"
#include "load/prompts.h"
#include "load/samples.h"
#include "load/session.h"

namespace cairn::load {

struct LoadOptions {
  // Closed loop: so many sessions at a time, the next begins when one ends. 0: open loop, sessions begin at
  // their own times whether or not the server keeps up, and a request's latencies count from the moment it
  // was due, not from when it could be sent.
  int64_t concurrency = 0;
  int64_t most_in_flight = 0;  // open loop: further sessions wait (and their latencies grow); 0: no bound
  double duration = 0;         // seconds after which nothing more is started; 0: until the sessions end
  std::chrono::milliseconds timeout{600'000};
  RequestStyle style;
  const std::atomic<bool>* stop = nullptr;  // polled; true gives up what is in progress
  std::function<void(int64_t done, int64_t in_flight)> progress = {};  // ten times a second
};

// Times are seconds since the load began.
struct RequestRecord {
  double due = 0, sent = 0, first = 0, last = 0, end = 0;  // first and last text; due: see LoadOptions
  int64_t asked_prompt = 0, asked_answer = 0;              // tokens; of a later turn only what it added
  int64_t prompt_tokens = -1, answer_tokens = -1, cached_tokens = -1;  // -1: the server does not say
  int64_t events = 0;
  int turn = 0;
  Fault fault = Fault::none;
  int status = 0;
  std::string finish_reason;
  enum class Json : uint8_t { unasked, valid, invalid, cut } json = Json::unasked;

  // The server's count, or the number of chunks where it gives none.
  int64_t counted_answer() const { return answer_tokens >= 0 ? answer_tokens : events; }
};

struct Tick {  // of about 100 ms
  double at = 0;
  int64_t in_flight = 0, events = 0;  // events since the tick before
};

struct Run {
  std::vector<RequestRecord> requests;  // in the order of their ends
  Samples gaps;                         // between chunks with text of one answer, seconds
  std::vector<Tick> ticks;
  std::map<std::string, int64_t> faults;  // "status 429: the queue is full" and how often, at most 50 kinds
  double seconds = 0;                     // from the first request to the last end
  double cpu_seconds = 0;                 // of this process in that time, user and system
  int64_t events = 0, abandoned = 0;      // abandoned: in progress when stopped
  uint64_t connections = 0;
  bool stopped = false;
  std::string started;  // UTC, "2026-01-31T12:00:00Z"
};

Run run_load(boost::asio::io_context&, Client&, SessionSource&, const Alphabet&, const LoadOptions&);

}  // namespace cairn::load
