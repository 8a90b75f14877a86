// Server-sent events out of a byte stream that arrives in any pieces.
// Source: WHATWG HTML, "Server-sent events", section 9.2.6.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace cairn::load {

// Lines end in LF, CR or CRLF; data lines of one event are joined by LF; comments and the fields "id" and
// "retry" are passed over; an event without data is none. What an unfinished last event holds is dropped, as
// the standard says.
class SseParser {
 public:
  explicit SseParser(size_t limit = size_t{4} << 20) : limit_(limit) {}

  // on_event(type, data): both die with the call; type is "" when not given. Returns false, once and for all,
  // when a line or an event is longer than the limit.
  template <typename OnEvent>
  bool add(std::string_view bytes, OnEvent&& on_event) {
    while (!bytes.empty() && !too_long_) {
      if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
      after_cr_ = false;
      const size_t end = line_end(bytes);
      if (end == bytes.npos) {
        keep(line_, bytes);
        break;
      }
      std::string_view line = bytes.substr(0, end);
      if (!line_.empty()) {
        keep(line_, line);
        line = line_;
      }
      after_cr_ = bytes[end] == '\r';
      bytes.remove_prefix(end + 1);
      if (line.empty()) {
        if (has_data_) on_event(std::string_view(type_), std::string_view(data_));
        clear_event();
      } else {
        take(line);
      }
      line_.clear();
    }
    return !too_long_;
  }

  size_t comments() const { return comments_; }
  bool too_long() const { return too_long_; }

 private:
  static size_t line_end(std::string_view bytes);
  void keep(std::string& where, std::string_view what);
  void take(std::string_view line);
  void clear_event() {
    type_.clear();
    data_.clear();
    has_data_ = false;
  }

  size_t limit_;
  std::string line_;  // the beginning of a line whose end has not come
  std::string type_, data_;
  bool has_data_ = false, after_cr_ = false, first_line_ = true, too_long_ = false;
  size_t comments_ = 0;
};

}  // namespace cairn::load
