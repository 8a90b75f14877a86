// Python's str at the level of code points, over UTF-8. Strings are valid UTF-8 except that lone surrogates
// may stand in their three-byte form. Case and classes follow Python (full case mapping, derived properties).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::text::jinja {

size_t code_points(std::string_view);
char32_t decode(std::string_view, size_t& position);  // advances; undefined on invalid text
void append(std::string&, char32_t);
std::u32string to_points(std::string_view);
std::string from_points(std::u32string_view);
size_t byte_offset(std::string_view, size_t points);  // of the code point at that index, size() past the end
bool is_valid_utf8(std::string_view);                 // strict: no surrogates, nothing overlong

bool is_space(char32_t);
bool is_alpha(char32_t);
bool is_decimal(char32_t);
bool is_digit(char32_t);
bool is_numeric(char32_t);
bool is_alnum(char32_t);
bool is_lower(char32_t);
bool is_upper(char32_t);
bool is_title(char32_t);  // titlecase letters (Lt)
bool is_printable(char32_t);
bool is_identifier_start(char32_t);
bool is_identifier_part(char32_t);
int decimal_value(char32_t);  // of a decimal digit of any script, -1 otherwise

std::string lower(std::string_view);
std::string upper(std::string_view);
std::string capitalize(std::string_view);
std::string title(std::string_view);
std::string swapcase(std::string_view);
std::string casefold(std::string_view);

std::string_view strip(std::string_view, bool left = true, bool right = true);

}  // namespace cairn::text::jinja
