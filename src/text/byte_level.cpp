#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace cairn::text {
namespace {

struct Alphabet {
  std::array<uint16_t, 256> visible{};
  std::array<int16_t, 324> byte{};

  Alphabet() {
    byte.fill(-1);
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      visible[size_t(b)] = printable ? uint16_t(b) : next++;
      byte[visible[size_t(b)]] = int16_t(b);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

uint32_t byte_to_visible(uint8_t byte) { return alphabet().visible[byte]; }

int visible_to_byte(uint32_t c) { return c < alphabet().byte.size() ? alphabet().byte[c] : -1; }

std::string to_visible(std::string_view bytes) {
  std::string out;
  for (char c : bytes) append_utf8(out, byte_to_visible(uint8_t(c)));
  return out;
}

bool append_from_visible(std::string& out, std::string_view text) {
  const Alphabet& letters = alphabet();
  const size_t before = out.size();
  for (size_t i = 0; i < text.size();) {
    uint32_t value = uint8_t(text[i]);
    if (value < 0x80) {
      ++i;
    } else {
      const CodePoint c = decode_utf8(text.substr(i));
      value = c.value;
      i += c.bytes;
    }
    const int byte = value < letters.byte.size() ? letters.byte[value] : -1;
    if (byte < 0) {
      out.resize(before);
      return false;
    }
    out += char(byte);
  }
  return true;
}

std::optional<std::string> from_visible(std::string_view text) {
  std::string out;
  if (!append_from_visible(out, text)) return std::nullopt;
  return out;
}

}  // namespace cairn::text
