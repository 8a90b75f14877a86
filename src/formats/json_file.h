// JSON from files that nobody vouches for: bounded depth, no repeated names, one sentence when it is not
// JSON.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace cairn::formats {

// Brackets inside brackets. Model files use fewer than ten; recursion over a tree of this depth is harmless.
inline constexpr int kJsonDepth = 100;

// `name` is for errors. Throws Error(invalid_file) for text that is not JSON (NaN and Infinity are not), a
// value nested deeper than kJsonDepth, or a name that appears twice in one object.
nlohmann::json parse_json(std::string_view text, const std::string& name);

nlohmann::json read_json_file(const std::filesystem::path&, size_t limit = size_t{64} << 20);

// The parser's message without its bracketed prefix: "parse error at line 1, column 5: ...".
std::string json_error_text(const std::exception&);

}  // namespace cairn::formats
