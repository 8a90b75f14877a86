// Typed reading of config.json. A field that is null counts as missing, as in the Python library. Errors name
// the file, the field, the value found and what is allowed.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::formats {

// The member, or null when the object lacks it or it is null. Throws when `object` is no JSON object.
const nlohmann::json* find_field(const nlohmann::json& object, std::string_view field,
                                 const std::string& file);

// require_*: a missing field throws Error(invalid_file). optional_*: a missing field gives nullopt.
// Both throw Error(invalid_file) for a value of another type or outside [minimum, maximum].
int64_t require_int(const nlohmann::json& object, std::string_view field, int64_t minimum, int64_t maximum,
                    const std::string& file);
std::optional<int64_t> optional_int(const nlohmann::json& object, std::string_view field, int64_t minimum,
                                    int64_t maximum, const std::string& file);

// Integers are accepted; NaN and infinity are not.
double require_number(const nlohmann::json& object, std::string_view field, double minimum, double maximum,
                      const std::string& file);
std::optional<double> optional_number(const nlohmann::json& object, std::string_view field, double minimum,
                                      double maximum, const std::string& file);

bool require_bool(const nlohmann::json& object, std::string_view field, const std::string& file);
std::optional<bool> optional_bool(const nlohmann::json& object, std::string_view field,
                                  const std::string& file);

std::string require_string(const nlohmann::json& object, std::string_view field, const std::string& file);
std::optional<std::string> optional_string(const nlohmann::json& object, std::string_view field,
                                           const std::string& file);

// Arrays. An empty array is allowed; the caller knows what length it needs.
std::optional<std::vector<int64_t>> optional_ints(const nlohmann::json& object, std::string_view field,
                                                  int64_t minimum, int64_t maximum, const std::string& file);
std::optional<std::vector<double>> optional_numbers(const nlohmann::json& object, std::string_view field,
                                                    double minimum, double maximum, const std::string& file);
std::optional<std::vector<std::string>> optional_strings(const nlohmann::json& object, std::string_view field,
                                                         const std::string& file);

// A nested object such as "rope_scaling"; null when missing.
const nlohmann::json* optional_object(const nlohmann::json& object, std::string_view field,
                                      const std::string& file);

}  // namespace cairn::formats
