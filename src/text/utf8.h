// UTF-8 as the Unicode standard defines it: no surrogates, no overlong forms, nothing past U+10FFFF.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::text {

inline constexpr uint32_t kInvalid = 0xffffffff;
inline constexpr uint32_t kReplacement = 0xfffd;
inline constexpr std::string_view kReplacementUtf8 = "\xef\xbf\xbd";

struct CodePoint {
  uint32_t value;  // kInvalid for a broken sequence
  uint32_t
      bytes;  // consumed; for a broken sequence its longest prefix that could still have become valid, >= 1
};

// The code point at text[0]; text is not empty.
CodePoint decode_utf8(std::string_view text);

// The same for text known to be valid UTF-8.
inline CodePoint decode_valid(const char* s) {
  const auto b = [s](int i) { return uint32_t(uint8_t(s[i])); };
  if (b(0) < 0x80) return {b(0), 1};
  if (b(0) < 0xe0) return {(b(0) & 0x1f) << 6 | (b(1) & 0x3f), 2};
  if (b(0) < 0xf0) return {(b(0) & 0xf) << 12 | (b(1) & 0x3f) << 6 | (b(2) & 0x3f), 3};
  return {(b(0) & 7) << 18 | (b(1) & 0x3f) << 12 | (b(2) & 0x3f) << 6 | (b(3) & 0x3f), 4};
}

inline bool is_continuation(char c) { return (uint8_t(c) & 0xc0) == 0x80; }

void append_utf8(std::string& out, uint32_t code_point);
bool is_valid_utf8(std::string_view);

// Broken sequences become U+FFFD, one for each longest prefix of a character (as Python's and Rust's decoders
// do).
std::string replace_invalid_utf8(std::string_view);

// How many bytes at the end of text are the unfinished start of a character that may still become valid: 0
// to 3.
size_t unfinished_utf8(std::string_view text);

}  // namespace cairn::text
