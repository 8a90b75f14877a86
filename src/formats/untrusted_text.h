// Text from files and servers, made safe to print.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace cairn::formats {

// Bytes that are not UTF-8 become U+FFFD, so that the text can be put into JSON.
std::string valid_utf8(std::string_view);

// For error messages: valid UTF-8 without control characters (a name must not drive the terminal), cut at
// `limit` bytes.
std::string shown(std::string_view, size_t limit = 200);

}  // namespace cairn::formats
