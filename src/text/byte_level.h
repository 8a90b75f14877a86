// GPT-2's visible alphabet for bytes: printable Latin-1 characters stand for themselves, the other 68 bytes
// for U+0100 onwards ("Ġ" is a space). Vocabularies of byte-level BPE are written in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::text {

uint32_t byte_to_visible(uint8_t byte);
int visible_to_byte(uint32_t code_point);  // -1 when the character stands for no byte

std::string to_visible(std::string_view bytes);
// Appends the bytes to out; false, with out as it was, when a character of the text stands for no byte.
bool append_from_visible(std::string& out, std::string_view text);
// nullopt when a character of the text (valid UTF-8) stands for no byte.
std::optional<std::string> from_visible(std::string_view text);

}  // namespace cairn::text
