#include "quantize/settings.h"

#include <cassert>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace cairn::quantize {
namespace {

template <typename T>
T parse(std::string_view name, const std::string& value, T least, T most) {
  T number{};
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || !(number >= least && number <= most))
    fail(ErrorKind::invalid_argument, "--{} is '{}'; it must be a number from {} to {}", name, value, least,
         most);
  return number;
}

}  // namespace

const std::string& Settings::text(std::string_view name) const {
  const auto found = values_.find(name);
  assert(found != values_.end());
  return found->second;
}

int64_t Settings::integer(std::string_view name, int64_t least, int64_t most) const {
  return parse(name, text(name), least, most);
}

double Settings::number(std::string_view name, double least, double most) const {
  return parse(name, text(name), least, most);
}

bool Settings::flag(std::string_view name) const {
  const auto& value = text(name);
  if (value != "on" && value != "off")
    fail(ErrorKind::invalid_argument, "--{} is '{}'; it is on or off", name, value);
  return value == "on";
}

std::string Settings::all() const {
  std::string result;
  for (const auto& [name, value] : values_) result += (result.empty() ? "" : " ") + name + "=" + value;
  return result;
}

}  // namespace cairn::quantize
