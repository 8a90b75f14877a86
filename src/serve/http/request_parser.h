// HTTP/1.1 requests out of bytes, without sockets. Boost.Beast reads the message; what Beast tolerates and a
// second parser in front of us could understand differently is refused here first (request smuggling): bare
// CR and LF, folded lines, space before a colon, bytes outside the grammar, repeated or contradictory
// framing. RFC 9112, with the strict mode of llhttp as the yardstick (request_parser_data_test.cpp lists the
// differences).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "serve/http/server.h"

namespace cairn::serve {

struct RequestHead {
  std::string method, target;
  int minor_version = 1;  // of HTTP/1
  Fields fields;
  bool chunked = false, has_length = false;
  uint64_t length = 0;     // meaningful with has_length
  bool keep_alive = true;  // what the client asks for
  bool expects_continue = false;

  std::string_view field(std::string_view name) const;  // "" when missing
  size_t count(std::string_view name) const;
};

// One request. Memory: at most the limits, plus what feed() is given.
class RequestParser {
 public:
  enum class State { head, body, done, failed };

  RequestParser(size_t header_limit, size_t body_limit);
  ~RequestParser();

  // `bytes` begins where the last call stopped consuming. Returns how many were consumed; stops after the
  // head so that the caller can judge it before the body is taken.
  size_t feed(std::string_view bytes);

  State state() const { return state_; }
  bool started() const { return started_; }  // some byte of a request has been seen
  const RequestHead& head() const { return head_; }
  std::string take_body();
  size_t body_size() const;

  int status() const { return status_; }           // when failed: 400, 413, 414, 431, 501 or 505
  std::string_view code() const { return code_; }  // when failed
  std::string_view message() const { return message_; }

 private:
  struct Beast;
  size_t feed_head(std::string_view);
  size_t feed_body(std::string_view);
  bool check_lines(std::string_view);
  bool check_request_line(std::string_view);
  bool check_field_line(std::string_view);
  bool read_framing();
  bool refuse(int status, const char* code, const char* message);

  const size_t header_limit_, body_limit_;
  State state_ = State::head;
  bool started_ = false;
  bool unfinished_ = false;  // a chunk's header or the trailer needs more bytes
  size_t skipped_ = 0;       // empty lines before the request line
  size_t scanned_ = 0;       // bytes of the unfinished line that are looked at
  size_t checked_ = 0;       // bytes of whole lines that are checked
  size_t lines_ = 0;
  size_t framing_bytes_ = 0;  // of the body, chunk headers included
  RequestHead head_;
  std::unique_ptr<Beast> beast_;
  int status_ = 0;
  const char* code_ = "";
  const char* message_ = "";
};

}  // namespace cairn::serve
