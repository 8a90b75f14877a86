#include "load/lines.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::load {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool read_digits(std::string_view& text, size_t count, int& value) {
  if (text.size() < count) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + count, value);
  if (error != std::errc() || end != text.data() + count || value < 0) return false;
  text.remove_prefix(count);
  return true;
}

bool read_char(std::string_view& text, std::string_view allowed) {
  if (text.empty() || allowed.find(text.front()) == allowed.npos) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::vector<std::string_view> columns(std::string_view line) {
  std::vector<std::string_view> fields;
  while (fields.size() < 64) {
    const size_t comma = line.find(',');
    fields.push_back(trimmed(line.substr(0, comma)));
    if (comma == line.npos) break;
    line.remove_prefix(comma + 1);
  }
  return fields;
}

double read_number(std::string_view text, double minimum, double maximum, const std::string& where,
                   std::string_view field) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    fail(ErrorKind::invalid_file, "{}: {} is '{}', which is no number", where, field,
         formats::shown(text, 40));
  if (value < minimum || value > maximum)
    fail(ErrorKind::invalid_file, "{}: {} is {}, outside of {:g} to {:g}", where, field, value, minimum,
         maximum);
  return value;
}

double read_time(std::string_view text, const std::string& where, std::string_view field) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  std::string_view rest = text;
  if (text.size() < 11 || text[4] != '-') return read_number(text, 0, 1e12, where, field);
  if (!(read_digits(rest, 4, year) && read_char(rest, "-") && read_digits(rest, 2, month) &&
        read_char(rest, "-") && read_digits(rest, 2, day) && read_char(rest, " T") &&
        read_digits(rest, 2, hour) && read_char(rest, ":") && read_digits(rest, 2, minute) &&
        read_char(rest, ":")) ||
      month < 1 || month > 12 || day < 1 || day > 31)
    fail(ErrorKind::invalid_file, "{}: {} is '{}', no time like 2023-11-16 18:17:03.5", where, field,
         formats::shown(text, 40));
  const size_t end = std::min(rest.find_first_not_of("0123456789."), rest.size());
  const std::string_view zone = rest.substr(end);
  if (!zone.empty() && zone != "Z" && zone.front() != '+' && zone.front() != '-')
    fail(ErrorKind::invalid_file, "{}: {} is '{}', no time like 2023-11-16 18:17:03.5", where, field,
         formats::shown(text, 40));
  const double seconds = read_number(rest.substr(0, end), 0, 61, where, field);
  const std::chrono::sys_days date =
      std::chrono::year(year) / std::chrono::month(unsigned(month)) / std::chrono::day(unsigned(day));
  return double(date.time_since_epoch().count()) * 86400 + hour * 3600 + minute * 60 + seconds;
}

}  // namespace cairn::load
