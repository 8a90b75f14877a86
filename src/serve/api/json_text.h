// JSON in and out: bodies read within limits, strings written fast.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cairn::serve {

using Json = nlohmann::ordered_json;  // clients and templates see keys in the order in which they came

inline constexpr int kDeepestJson = 64;  // arrays and objects within each other

// Throws ApiError(400) that names the byte for what is not JSON: text that is not UTF-8, lone surrogates,
// numbers past a double's range and nesting past kDeepestJson included. Time and memory are bounded by the
// size of the body.
Json parse_body(std::string_view body);

// Appends `text` as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);
inline std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

// Never throws: what is not UTF-8 becomes U+FFFD.
std::string dump(const Json&);
void append_json_number(std::string& out, double);  // shortest that reads back; null for what JSON cannot say

}  // namespace cairn::serve
