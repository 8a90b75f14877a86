// One request and its answer, shared between the thread that answers and the I/O thread that sends. The lock
// is held for appending bytes only; what belongs to the I/O thread alone is not under it.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "serve/http/server.h"

namespace cairn::serve {

class Connection;
class Loop;

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  // Known before anything is answered and constant from then on.
  struct Facts {
    std::string id, method = "-", path = "-", client, peer;
    std::string origin;         // allowed by CORS: goes into the answer's head
    bool without_body = false;  // HEAD
    bool http10 = false;
    bool keep_alive = true;
    std::chrono::steady_clock::time_point began;
  };

  Exchange(std::shared_ptr<Loop>, Connection*, Facts);
  const Facts& facts() const { return facts_; }

  // Any thread.
  void respond(HttpResponse);
  void start(int status, std::string_view content_type, const Fields& headers);
  bool write(std::string_view, double since);
  void finish();
  void on_gone(std::function<void()>);
  void abandon(bool while_throwing);  // its Reply was dropped
  bool gone() const;
  size_t queued() const;

  // The I/O thread.
  struct Taken {
    bool complete = false;  // nothing comes after these bytes
    bool close = false;     // end it after the answer
    double since = 0;       // the earliest that write() was told
  };
  Taken take(std::string& into);  // appends what waits
  void sent(size_t bytes);        // of what was taken
  void lose();                    // the client is gone; calls on_gone's function
  void comment_if_silent(std::chrono::steady_clock::time_point since);  // on an event stream
  // Lets writes of a stream go out through the socket at once; until lose() or the end of the stream.
  void write_through(int socket);
  uint64_t written_through() const;     // bytes
  bool is_complete() const;             // everything there will be has been queued
  bool is_cut() const { return cut_; }  // its queue overflowed: end the connection now
  int status() const;
  Connection* connection;  // nullptr once it has moved on

 private:
  enum class State { waiting, streaming, complete };
  void begin_head(std::string& head, int status, std::string_view content_type, const Fields&);
  void append_chunk(std::string_view);
  bool send_now(double since);
  void wake(std::unique_lock<std::mutex>&);

  const Facts facts_;
  const std::shared_ptr<Loop> loop_;
  mutable std::mutex mutex_;
  State state_ = State::waiting;
  std::atomic<bool> cut_{false};
  bool gone_ = false, close_ = false, awake_ = false, events_ = false, chunked_ = false;
  int status_ = 0;
  size_t unsent_ = 0;  // taken and not yet sent
  int socket_ = -1;    // see write_through()
  uint64_t written_through_ = 0;
  std::chrono::steady_clock::time_point last_through_;
  double since_ = 0;  // of what is in out_
  std::string out_;
  std::function<void()> on_gone_;
};

const char* reason_phrase(int status);

}  // namespace cairn::serve
