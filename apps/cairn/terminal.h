// What the program draws for a person, and only for a person: nothing here writes unless stderr is a
// terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::app {

bool is_terminal(int fd);             // 0: stdin, 1: stdout, 2: stderr; a terminal called "dumb" is none
int terminal_columns(int fd = 2);     // 80 when nobody knows
int display_width(std::string_view);  // columns that UTF-8 text takes; invalid bytes count as one
// For names out of hostile files: line breaks and tabs become spaces, other control characters "\\x1b", so
// that none of them reaches the terminal as a command. Trailing spaces are cut.
std::string visible(std::string_view);
// In double quotes, with every byte readable: "\\n", "\\"", and "\\xe6" where bytes are not UTF-8.
std::string quoted_text(std::string_view);
std::string readable_bytes(uint64_t);           // "512 B", "1.5 MiB"
std::string readable_duration(double seconds);  // "42 s", "3:07", "2:00:05"

enum class ProgressUnit { bytes, tokens, items };

// One line of at most `columns` columns: label, bar, share, amounts, rate, time left. total 0: unknown, no
// bar; per_second 0: unknown, no rate.
std::string progress_line(std::string_view label, uint64_t done, uint64_t total, ProgressUnit unit,
                          double per_second, int columns);

// A line on stderr that is redrawn at most ten times a second and erased at the end, so that stdout's text
// stays clean. Not drawn before `delay_seconds`: short work shows nothing. Calls must come from one thread at
// a time.
class ProgressBar {
 public:
  ProgressBar(std::string label, uint64_t total, ProgressUnit unit, double delay_seconds = 0.5);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(uint64_t done);  // the amount that is complete, not the difference
  void update(uint64_t done, uint64_t total);
  void finish();  // erases the line

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  uint64_t total_, done_ = 0;
  uint64_t first_ = 0;  // what was there already at the first update (a resumed download) is not speed
  bool begun_ = false;
  ProgressUnit unit_;
  double delay_seconds_;
  bool enabled_, drawn_ = false;
  Clock::time_point start_, last_drawn_;
};

}  // namespace cairn::app
