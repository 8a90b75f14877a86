#include "terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace cairn::app {
namespace {

std::string amount(uint64_t value, ProgressUnit unit) {
  return unit == ProgressUnit::bytes ? readable_bytes(value) : fmt::format("{}", value);
}

std::string rate(double per_second, ProgressUnit unit) {
  switch (unit) {
    case ProgressUnit::bytes: return readable_bytes(uint64_t(per_second)) + "/s";
    case ProgressUnit::tokens: return fmt::format("{:.1f} tok/s", per_second);
    case ProgressUnit::items: return fmt::format("{:.1f}/s", per_second);
  }
  return {};
}

// Cuts UTF-8 text to at most `columns` columns, at a character.
std::string fit(std::string_view text, int columns) {
  if (display_width(text) <= columns) return std::string(text);
  std::string kept;
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                    utf8proc_ssize_t(text.size() - i), &code);
    const size_t length = n > 0 ? size_t(n) : 1;
    const auto character = text.substr(i, length);
    if (display_width(kept) + display_width(character) > columns) break;
    kept += character;
    i += length;
  }
  return kept;
}

}  // namespace

bool is_terminal(int fd) {
  if (!isatty(fd)) return false;
  const char* kind = std::getenv("TERM");
  return kind && *kind && std::string_view(kind) != "dumb";
}

int terminal_columns(int fd) {
  struct winsize size {};
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  if (const char* columns = std::getenv("COLUMNS")) {
    const int value = std::atoi(columns);
    if (value > 0 && value < 10'000) return value;
  }
  return 80;
}

int display_width(std::string_view text) {
  int columns = 0;
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                    utf8proc_ssize_t(text.size() - i), &code);
    columns += n > 0 ? std::max(0, utf8proc_charwidth(code)) : 1;
    i += n > 0 ? size_t(n) : 1;
  }
  return columns;
}

std::string visible(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\n' || c == '\t' || c == '\r') {
      out += ' ';
    } else if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else if (c == 0xc2 && i + 1 < text.size() && (static_cast<unsigned char>(text[i + 1]) & 0xe0) == 0x80) {
      out += fmt::format("\\x{:02x}",
                         static_cast<unsigned char>(text[++i]));  // C1 controls in UTF-8: U+0080 to U+009F
    } else {
      out += text[i];
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string quoted_text(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                    utf8proc_ssize_t(text.size() - i), &code);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '"' || byte == '\\') {
      out += {'\\', char(byte)};
    } else if (n <= 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
      for (utf8proc_ssize_t k = 0; k < std::max<utf8proc_ssize_t>(n, 1); ++k)
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i + size_t(k)]));
    } else {
      out += text.substr(i, size_t(n));
    }
    i += n > 0 ? size_t(n) : 1;
  }
  return out + '"';
}

std::string readable_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = double(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string readable_duration(double seconds) {
  if (!(seconds >= 0)) return "?";
  const auto whole = uint64_t(std::min(std::ceil(seconds), 1e9));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string progress_line(std::string_view label, uint64_t done, uint64_t total, ProgressUnit unit,
                          double per_second, int columns) {
  if (total > 0) done = std::min(done, total);
  std::string facts;
  if (total > 0) {
    facts = fmt::format(" {:3}% {}/{}", done == total ? 100 : int(double(done) / double(total) * 100),
                        amount(done, unit), amount(total, unit));
    if (per_second > 0) {
      facts += fmt::format(" {}", rate(per_second, unit));
      if (done < total)
        facts += fmt::format(" {} left", readable_duration(double(total - done) / per_second));
    }
  } else {
    facts = fmt::format(" {}", amount(done, unit));
    if (per_second > 0) facts += fmt::format(" {}", rate(per_second, unit));
  }
  const int fixed = display_width(label) + display_width(facts);
  const int room = std::min(40, columns - fixed - 3);  // " [" and "]"
  if (total == 0 || room < 5) return fit(std::string(label) + facts, columns);
  const int filled = int(double(done) / double(total) * room);
  return fmt::format("{} [{}{}]{}", label, std::string(size_t(filled), '#'),
                     std::string(size_t(room - filled), '.'), facts);
}

ProgressBar::ProgressBar(std::string label, uint64_t total, ProgressUnit unit, double delay_seconds)
    : label_(std::move(label)),
      total_(total),
      unit_(unit),
      delay_seconds_(delay_seconds),
      enabled_(is_terminal(2)),
      start_(Clock::now()),
      last_drawn_(start_) {}

void ProgressBar::update(uint64_t done, uint64_t total) {
  total_ = total;
  update(done);
}

void ProgressBar::update(uint64_t done) {
  done_ = done;
  if (!enabled_) return;
  const auto now = Clock::now();
  if (!begun_) {
    begun_ = true;
    first_ = done;
    start_ = last_drawn_ = now;
  }
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double since = std::chrono::duration<double>(now - last_drawn_).count();
  if (elapsed < delay_seconds_ || (drawn_ && since < 0.1)) return;
  const double per_second = done > first_ && elapsed > 0 ? double(done - first_) / elapsed : 0;
  // One column is left free: some terminals wrap when the last one is written.
  const auto line = progress_line(label_, done_, total_, unit_, per_second, terminal_columns(2) - 1);
  std::fputs(fmt::format("\r{}\x1b[K", line).c_str(), stderr);
  std::fflush(stderr);
  drawn_ = true;
  last_drawn_ = now;
}

void ProgressBar::finish() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace cairn::app
