#include "text/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/jinja/unicode_tables.h"

namespace cairn::text::jinja {

size_t code_points(std::string_view text) {
  size_t n = 0;
  for (char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

char32_t decode(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return char32_t(static_cast<unsigned char>(text[i])); };
  const char32_t first = byte(at);
  if (first < 0x80) return at += 1, first;
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (at + length > text.size()) return at = text.size(), U'\uFFFD';
  char32_t point = first & (length == 2 ? 0x1F : length == 3 ? 0x0F : 0x07);
  for (size_t i = 1; i < length; ++i) point = point << 6 | (byte(at + i) & 0x3F);
  at += length;
  return point;
}

void append(std::string& out, char32_t c) {
  if (c < 0x80) {
    out.push_back(char(c));
  } else if (c < 0x800) {
    out.push_back(char(0xC0 | c >> 6));
    out.push_back(char(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(char(0xE0 | c >> 12));
    out.push_back(char(0x80 | (c >> 6 & 0x3F)));
    out.push_back(char(0x80 | (c & 0x3F)));
  } else {
    out.push_back(char(0xF0 | c >> 18));
    out.push_back(char(0x80 | (c >> 12 & 0x3F)));
    out.push_back(char(0x80 | (c >> 6 & 0x3F)));
    out.push_back(char(0x80 | (c & 0x3F)));
  }
}

std::u32string to_points(std::string_view text) {
  std::u32string points;
  points.reserve(text.size());
  for (size_t at = 0; at < text.size();) points.push_back(decode(text, at));
  return points;
}

std::string from_points(std::u32string_view points) {
  std::string text;
  text.reserve(points.size());
  for (char32_t c : points) append(text, c);
  return text;
}

size_t byte_offset(std::string_view text, size_t points) {
  size_t at = 0;
  while (at < text.size()) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80 && points-- == 0) return at;
    ++at;
  }
  return at;
}

bool is_valid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t at = 0; at < text.size();) {
    if (bytes[at] < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t n = utf8proc_iterate(bytes + at, utf8proc_ssize_t(text.size() - at), &point);
    if (n <= 0) return false;
    at += size_t(n);
  }
  return true;
}

namespace {

bool in(const std::vector<PointRange>& ranges, char32_t c) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), c,
                                      [](char32_t point, const PointRange& r) { return point < r.first; });
  return after != ranges.begin() && c <= std::prev(after)->last;
}

const PointMapping* mapping(const std::vector<PointMapping>& table, char32_t c) {
  const auto at = std::lower_bound(table.begin(), table.end(), c,
                                   [](const PointMapping& m, char32_t point) { return m.from < point; });
  return at != table.end() && at->from == c ? &*at : nullptr;
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(utf8proc_int32_t(c)); }
bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }

void add_upper(std::string& out, char32_t c) {
  if (c < 0x80) return append(out, c >= 'a' && c <= 'z' ? c - 32 : c);
  if (const auto* m = mapping(kUpper, c)) return out.append(from_points(m->to)), void();
  append(out, char32_t(utf8proc_toupper(utf8proc_int32_t(c))));
}

void add_title(std::string& out, char32_t c) {
  if (const auto* m = mapping(kTitle, c)) return out.append(from_points(m->to)), void();
  append(out, char32_t(utf8proc_totitle(utf8proc_int32_t(c))));
}

// Sigma at the end of a word becomes the final form: a cased letter before it and none after, what is
// case-ignorable skipped (Unicode 3.13, Final_Sigma).
bool is_final_sigma(std::u32string_view points, size_t at) {
  size_t before = at;
  while (before > 0 && in(kCaseIgnorable, points[before - 1])) --before;
  if (before == 0 || !is_cased(points[before - 1])) return false;
  size_t after = at + 1;
  while (after < points.size() && in(kCaseIgnorable, points[after])) ++after;
  return after == points.size() || !is_cased(points[after]);
}

void add_lower(std::string& out, std::u32string_view points, size_t at) {
  const char32_t c = points[at];
  if (c < 0x80) return append(out, c >= 'A' && c <= 'Z' ? c + 32 : c);
  if (c == U'\u03A3') return append(out, is_final_sigma(points, at) ? U'\u03C2' : U'\u03C3');
  if (c == U'\u0130') return out.append("i\u0307"), void();
  append(out, char32_t(utf8proc_tolower(utf8proc_int32_t(c))));
}

}  // namespace

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}
bool is_alpha(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(char32_t c) { return is_decimal(c) || in(kOtherDigit, c); }
bool is_numeric(char32_t c) {
  const auto k = category(c);
  return (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) || in(kOtherNumeric, c);
}
bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || in(kOtherLower, c); }
bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU || in(kOtherUpper, c); }
bool is_title(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}
bool is_identifier_start(char32_t c) {
  return c == '_' || is_alpha(c) || category(c) == UTF8PROC_CATEGORY_NL;
}
bool is_identifier_part(char32_t c) {
  const auto k = category(c);
  return is_identifier_start(c) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_MN ||
         k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_PC || c == 0xB7 || c == 0x387;
}
int decimal_value(char32_t c) {
  if (c >= '0' && c <= '9') return int(c - '0');
  if (c < 0x80 || !is_decimal(c)) return -1;
  // Decimal digits come in runs of ten from a zero; runs follow one another without gaps only in
  // U+1D7CE..1D7FF.
  if (c >= 0x1D7CE && c <= 0x1D7FF) return int(c - 0x1D7CE) % 10;
  int value = 0;
  while (value < 9 && is_decimal(c - 1)) --c, ++value;
  return value;
}

std::string lower(std::string_view text) {
  const auto points = to_points(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < points.size(); ++i) add_lower(out, points, i);
  return out;
}

std::string upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) add_upper(out, decode(text, at));
  return out;
}

std::string capitalize(std::string_view text) {
  const auto points = to_points(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) i == 0 ? add_title(out, points[0]) : add_lower(out, points, i);
  return out;
}

std::string title(std::string_view text) {
  const auto points = to_points(text);
  std::string out;
  bool inside = false;
  for (size_t i = 0; i < points.size(); ++i) {
    inside ? add_lower(out, points, i) : add_title(out, points[i]);
    inside = is_cased(points[i]);
  }
  return out;
}

std::string swapcase(std::string_view text) {
  const auto points = to_points(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (is_upper(points[i]))
      add_lower(out, points, i);
    else if (is_lower(points[i]))
      add_upper(out, points[i]);
    else
      append(out, points[i]);
  }
  return out;
}

std::string casefold(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode(text, at);
    if (const auto* m = mapping(kFold, c)) {
      out += from_points(m->to);
      continue;
    }
    utf8proc_int32_t folded[4];
    int boundary = 0;
    const auto n = utf8proc_decompose_char(utf8proc_int32_t(c), folded, 4, UTF8PROC_CASEFOLD, &boundary);
    if (n < 1) append(out, c);
    for (utf8proc_ssize_t i = 0; i < n && i < 4; ++i) append(out, char32_t(folded[i]));
  }
  return out;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!is_space(decode(text, next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    size_t next = last;
    if (!is_space(decode(text, next))) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

}  // namespace cairn::text::jinja
