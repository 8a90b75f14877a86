#include "text/utf8.h"

#include <cstring>

namespace cairn::text {

CodePoint decode_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return uint32_t(uint8_t(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  // The second byte's range depends on the lead (Unicode standard, table 3-7); it excludes overlong and
  // surrogates.
  uint32_t length = 0, low = 0x80, high = 0xbf, value = 0;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2, value = lead & 0x1f;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3, value = lead & 0xf;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4, value = lead & 7;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return {kInvalid, 1};
  }
  for (uint32_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) return {kInvalid, i};
    value = value << 6 | (byte(i) & 0x3f);
    low = 0x80, high = 0xbf;
  }
  return {value, length};
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += char(0xc0 | c >> 6);
    out += char(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += char(0xe0 | c >> 12);
    out += char(0x80 | (c >> 6 & 0x3f));
    out += char(0x80 | (c & 0x3f));
  } else {
    out += char(0xf0 | c >> 18);
    out += char(0x80 | (c >> 12 & 0x3f));
    out += char(0x80 | (c >> 6 & 0x3f));
    out += char(0x80 | (c & 0x3f));
  }
}

namespace {

// The offset of the first broken sequence, or text.size().
size_t first_invalid(std::string_view text, size_t i) {
  while (i < text.size()) {
    uint64_t eight = 0;
    if (i + 8 <= text.size()) {
      std::memcpy(&eight, text.data() + i, 8);
      if ((eight & 0x8080808080808080u) == 0) {
        i += 8;
        continue;
      }
    }
    const CodePoint c = decode_utf8(text.substr(i));
    if (c.value == kInvalid) return i;
    i += c.bytes;
  }
  return i;
}

}  // namespace

bool is_valid_utf8(std::string_view text) { return first_invalid(text, 0) == text.size(); }

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t bad = first_invalid(text, i);
    out += text.substr(i, bad - i);
    if (bad == text.size()) break;
    out += kReplacementUtf8;
    i = bad + decode_utf8(text.substr(bad)).bytes;
  }
  return out;
}

size_t unfinished_utf8(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const uint8_t lead = uint8_t(text[text.size() - back]);
    if ((lead & 0xc0) == 0x80) continue;
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
    if (length <= back) return 0;
    const CodePoint c = decode_utf8(text.substr(text.size() - back));
    return c.value == kInvalid && c.bytes == back && lead <= 0xf4 ? back : 0;
  }
  return 0;
}

}  // namespace cairn::text
