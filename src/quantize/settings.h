// What the command line offers for a method: --name VALUE, or --name alone for those that are on or off.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace cairn::quantize {

struct Setting {
  std::string_view name;      // "bits"
  std::string_view standard;  // the value when nobody says one; "off": a flag
  std::string_view help;
};

// Values by name; all settings of the method are there. Readers throw Error(invalid_argument) naming the
// flag, the value and what it may be.
class Settings {
 public:
  explicit Settings(std::map<std::string, std::string, std::less<>> values) : values_(std::move(values)) {}
  const std::string& text(std::string_view name) const;
  int64_t integer(std::string_view name, int64_t least, int64_t most) const;
  double number(std::string_view name, double least, double most) const;
  bool flag(std::string_view name) const;
  std::string all() const;  // "bits=4 group=128": tells runs apart

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

}  // namespace cairn::quantize
