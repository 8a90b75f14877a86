// Lines and columns of text files that nobody vouches for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::load {

// Calls on_line(line, number) with each line of `text`, without its LF or CRLF; numbers count from 1.
template <typename OnLine>
void each_line(std::string_view text, OnLine&& on_line) {
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    on_line(line, number);
  }
}

// Fields between commas, quotes not understood. At most 64; the rest is dropped.
std::vector<std::string_view> columns(std::string_view line);

// A decimal number that fills the field; spaces around it are allowed. Throws Error(invalid_file): `where` is
// the file and line, `field` the column.
double read_number(std::string_view text, double minimum, double maximum, const std::string& where,
                   std::string_view field);

// Seconds: a number, or a date and time "2023-11-16 18:17:03.97996" (with T or a blank, and an optional Z or
// +00:00 that is not looked at).
double read_time(std::string_view text, const std::string& where, std::string_view field);

}  // namespace cairn::load
