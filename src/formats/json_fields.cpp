#include "formats/json_fields.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

using nlohmann::json;

// A value as a person reads it in an error, cut where it gets long.
std::string described(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  constexpr size_t kLongest = 60;
  return shown(value.dump(-1, ' ', false, json::error_handler_t::replace), kLongest);
}

[[noreturn]] void missing(std::string_view field, const std::string& file) {
  fail(ErrorKind::invalid_file, "{}: the field '{}' is missing", file, field);
}

[[noreturn]] void mistyped(const json& value, std::string_view field, const char* wanted,
                           const std::string& file) {
  fail(ErrorKind::invalid_file, "{}: '{}' is {}; it must be {}", file, field, described(value), wanted);
}

int64_t to_int(const json& value, std::string_view field, int64_t minimum, int64_t maximum,
               const std::string& file) {
  if (!value.is_number_integer()) mistyped(value, field, "an integer", file);
  const bool too_large =
      value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max());
  const int64_t number = too_large ? 0 : value.get<int64_t>();
  if (too_large || number < minimum || number > maximum)
    fail(ErrorKind::invalid_file, "{}: '{}' is {}; it must lie between {} and {}", file, field,
         described(value), minimum, maximum);
  return number;
}

double to_number(const json& value, std::string_view field, double minimum, double maximum,
                 const std::string& file) {
  if (!value.is_number()) mistyped(value, field, "a number", file);
  const auto number = value.get<double>();
  if (!(number >= minimum && number <= maximum && std::isfinite(number)))
    fail(ErrorKind::invalid_file, "{}: '{}' is {}; it must lie between {} and {}", file, field,
         std::isfinite(number) ? described(value) : fmt::format("{}", number), minimum, maximum);
  return number;
}

bool to_bool(const json& value, std::string_view field, const std::string& file) {
  if (!value.is_boolean()) mistyped(value, field, "true or false", file);
  return value.get<bool>();
}

std::string to_string(const json& value, std::string_view field, const std::string& file) {
  if (!value.is_string()) mistyped(value, field, "a string", file);
  return value.get<std::string>();
}

// One element after another through `read`, which gets the element and its name "field[3]" for errors.
template <typename T, typename Read>
std::optional<std::vector<T>> elements(const json& object, std::string_view field, const std::string& file,
                                       Read&& read) {
  const json* value = find_field(object, field, file);
  if (!value) return std::nullopt;
  if (!value->is_array()) mistyped(*value, field, "an array", file);
  std::vector<T> result;
  result.reserve(value->size());
  for (const json& element : *value)
    result.push_back(read(element, fmt::format("{}[{}]", field, result.size())));
  return result;
}

}  // namespace

const json* find_field(const json& object, std::string_view field, const std::string& file) {
  if (!object.is_object())
    fail(ErrorKind::invalid_file, "{}: expected an object with the field '{}', found {}", file, field,
         described(object));
  const auto& members = object.get_ref<const json::object_t&>();
  const auto found = members.find(std::string(field));
  return found == members.end() || found->second.is_null() ? nullptr : &found->second;
}

std::optional<int64_t> optional_int(const json& object, std::string_view field, int64_t minimum,
                                    int64_t maximum, const std::string& file) {
  const json* value = find_field(object, field, file);
  return value ? std::optional(to_int(*value, field, minimum, maximum, file)) : std::nullopt;
}

int64_t require_int(const json& object, std::string_view field, int64_t minimum, int64_t maximum,
                    const std::string& file) {
  const json* value = find_field(object, field, file);
  if (!value) missing(field, file);
  return to_int(*value, field, minimum, maximum, file);
}

std::optional<double> optional_number(const json& object, std::string_view field, double minimum,
                                      double maximum, const std::string& file) {
  const json* value = find_field(object, field, file);
  return value ? std::optional(to_number(*value, field, minimum, maximum, file)) : std::nullopt;
}

double require_number(const json& object, std::string_view field, double minimum, double maximum,
                      const std::string& file) {
  const json* value = find_field(object, field, file);
  if (!value) missing(field, file);
  return to_number(*value, field, minimum, maximum, file);
}

std::optional<bool> optional_bool(const json& object, std::string_view field, const std::string& file) {
  const json* value = find_field(object, field, file);
  return value ? std::optional(to_bool(*value, field, file)) : std::nullopt;
}

bool require_bool(const json& object, std::string_view field, const std::string& file) {
  const json* value = find_field(object, field, file);
  if (!value) missing(field, file);
  return to_bool(*value, field, file);
}

std::optional<std::string> optional_string(const json& object, std::string_view field,
                                           const std::string& file) {
  const json* value = find_field(object, field, file);
  return value ? std::optional(to_string(*value, field, file)) : std::nullopt;
}

std::string require_string(const json& object, std::string_view field, const std::string& file) {
  const json* value = find_field(object, field, file);
  if (!value) missing(field, file);
  return to_string(*value, field, file);
}

std::optional<std::vector<int64_t>> optional_ints(const json& object, std::string_view field, int64_t minimum,
                                                  int64_t maximum, const std::string& file) {
  return elements<int64_t>(object, field, file, [&](const json& element, const std::string& name) {
    return to_int(element, name, minimum, maximum, file);
  });
}

std::optional<std::vector<double>> optional_numbers(const json& object, std::string_view field,
                                                    double minimum, double maximum, const std::string& file) {
  return elements<double>(object, field, file, [&](const json& element, const std::string& name) {
    return to_number(element, name, minimum, maximum, file);
  });
}

std::optional<std::vector<std::string>> optional_strings(const json& object, std::string_view field,
                                                         const std::string& file) {
  return elements<std::string>(object, field, file, [&](const json& element, const std::string& name) {
    return to_string(element, name, file);
  });
}

const json* optional_object(const json& object, std::string_view field, const std::string& file) {
  const json* value = find_field(object, field, file);
  if (value && !value->is_object()) mistyped(*value, field, "an object", file);
  return value;
}

}  // namespace cairn::formats
