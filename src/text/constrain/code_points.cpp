#include "text/constrain/code_points.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "text/unicode.h"

namespace cairn::text::constrain {

namespace {

constexpr uint32_t kFirstSurrogate = 0xd800, kLastSurrogate = 0xdfff;

// Splits [low, high], whose members take `length` bytes, until each part is a product of byte ranges: all but
// one of the bytes are equal, or the ones after it run through all 64 values.
void split(uint32_t low, uint32_t high, int length, std::vector<Utf8Sequence>& out) {
  for (int i = 1; i < length; ++i) {
    const uint32_t mask = (1u << (6 * i)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if (low & mask) {
      split(low, low | mask, length, out);
      split((low | mask) + 1, high, length, out);
      return;
    }
    if ((high & mask) != mask) {
      split(low, (high & ~mask) - 1, length, out);
      split(high & ~mask, high, length, out);
      return;
    }
  }
  Utf8Sequence sequence;
  sequence.length = length;
  constexpr uint8_t kLead[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (int i = 0; i < length; ++i) {
    const int shift = 6 * (length - 1 - i);
    const auto byte = [&](uint32_t c) {
      return uint8_t(i == 0 ? kLead[length] | c >> shift : 0x80 | (c >> shift & 0x3f));
    };
    sequence.bytes[i] = {byte(low), byte(high)};
  }
  out.push_back(sequence);
}

uint32_t category_bit(utf8proc_category_t category) { return 1u << category; }

// The categories that a general category's short or long name stands for, as bits; 0: not such a name.
uint32_t category_bits(std::string_view name) {
  struct Row {
    const char* brief;
    const char* full;
    utf8proc_category_t category;
  };
  static constexpr Row kRows[] = {
      {"Lu", "Uppercase_Letter", UTF8PROC_CATEGORY_LU},
      {"Ll", "Lowercase_Letter", UTF8PROC_CATEGORY_LL},
      {"Lt", "Titlecase_Letter", UTF8PROC_CATEGORY_LT},
      {"Lm", "Modifier_Letter", UTF8PROC_CATEGORY_LM},
      {"Lo", "Other_Letter", UTF8PROC_CATEGORY_LO},
      {"Mn", "Nonspacing_Mark", UTF8PROC_CATEGORY_MN},
      {"Mc", "Spacing_Mark", UTF8PROC_CATEGORY_MC},
      {"Me", "Enclosing_Mark", UTF8PROC_CATEGORY_ME},
      {"Nd", "Decimal_Number", UTF8PROC_CATEGORY_ND},
      {"Nl", "Letter_Number", UTF8PROC_CATEGORY_NL},
      {"No", "Other_Number", UTF8PROC_CATEGORY_NO},
      {"Pc", "Connector_Punctuation", UTF8PROC_CATEGORY_PC},
      {"Pd", "Dash_Punctuation", UTF8PROC_CATEGORY_PD},
      {"Ps", "Open_Punctuation", UTF8PROC_CATEGORY_PS},
      {"Pe", "Close_Punctuation", UTF8PROC_CATEGORY_PE},
      {"Pi", "Initial_Punctuation", UTF8PROC_CATEGORY_PI},
      {"Pf", "Final_Punctuation", UTF8PROC_CATEGORY_PF},
      {"Po", "Other_Punctuation", UTF8PROC_CATEGORY_PO},
      {"Sm", "Math_Symbol", UTF8PROC_CATEGORY_SM},
      {"Sc", "Currency_Symbol", UTF8PROC_CATEGORY_SC},
      {"Sk", "Modifier_Symbol", UTF8PROC_CATEGORY_SK},
      {"So", "Other_Symbol", UTF8PROC_CATEGORY_SO},
      {"Zs", "Space_Separator", UTF8PROC_CATEGORY_ZS},
      {"Zl", "Line_Separator", UTF8PROC_CATEGORY_ZL},
      {"Zp", "Paragraph_Separator", UTF8PROC_CATEGORY_ZP},
      {"Cc", "Control", UTF8PROC_CATEGORY_CC},
      {"Cf", "Format", UTF8PROC_CATEGORY_CF},
      {"Co", "Private_Use", UTF8PROC_CATEGORY_CO},
  };
  static constexpr std::pair<const char*, const char*> kGroups[] = {
      {"Letter", "L"}, {"Mark", "M"},      {"Number", "N"}, {"Punctuation", "P"},
      {"Symbol", "S"}, {"Separator", "Z"}, {"punct", "P"},  {"Combining_Mark", "M"}};
  for (const auto& [full, brief] : kGroups)
    if (name == full) name = brief;
  uint32_t bits = 0;
  for (const Row& row : kRows)
    if (name == row.brief || name == row.full || (name.size() == 1 && name != "C" && name[0] == row.brief[0]))
      bits |= category_bit(row.category);
  return bits;
}

}  // namespace

CodePoints CodePoints::all() { return CodePoints(0, kLastCodePoint); }

void CodePoints::insert(uint32_t low, uint32_t high) {
  if (low > high) return;
  // The usual case, ascending additions, touches only the end.
  auto first = ranges_.end();
  while (first != ranges_.begin() && uint64_t(std::prev(first)->high) + 1 >= low) --first;
  auto last = first;
  while (last != ranges_.end() && last->low <= uint64_t(high) + 1) {
    low = std::min(low, last->low);
    high = std::max(high, last->high);
    ++last;
  }
  first = ranges_.erase(first, last);
  ranges_.insert(first, {low, high});
}

void CodePoints::add(uint32_t low, uint32_t high) {
  high = std::min(high, kLastCodePoint);
  if (low < kFirstSurrogate) insert(low, std::min(high, kFirstSurrogate - 1));
  if (high > kLastSurrogate) insert(std::max(low, kLastSurrogate + 1), high);
}

void CodePoints::add(const CodePoints& other) {
  for (const Range& range : other.ranges_) insert(range.low, range.high);
}

void CodePoints::add_other_case() {
  const std::vector<Range> before = ranges_;
  const auto add_cases = [&](uint32_t c) {
    for (const auto other : {utf8proc_tolower(int32_t(c)), utf8proc_toupper(int32_t(c))})
      if (uint32_t(other) != c) add(uint32_t(other), uint32_t(other));
  };
  constexpr uint32_t kLastCased = 0x1e943;  // Adlam; nothing beyond has two cases
  for (const Range& range : before)
    for (uint32_t c = range.low; c <= std::min(range.high, kLastCased); ++c) add_cases(c);
}

CodePoints CodePoints::complement() const {
  CodePoints out;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.low > next) out.add(next, range.low - 1);
    next = range.high + 1;
  }
  if (next <= kLastCodePoint) out.add(next, kLastCodePoint);
  return out;
}

CodePoints CodePoints::intersect(const CodePoints& other) const {
  CodePoints out;
  size_t i = 0, j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const uint32_t low = std::max(ranges_[i].low, other.ranges_[j].low);
    const uint32_t high = std::min(ranges_[i].high, other.ranges_[j].high);
    if (low <= high) out.insert(low, high);
    if (ranges_[i].high < other.ranges_[j].high) {
      ++i;
    } else {
      ++j;
    }
  }
  return out;
}

bool CodePoints::contains(uint32_t c) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), c,
                                      [](uint32_t v, const Range& r) { return v < r.low; });
  return after != ranges_.begin() && std::prev(after)->high >= c;
}

std::vector<Utf8Sequence> utf8_sequences(const CodePoints& set) {
  constexpr uint32_t kLast[] = {0, 0x7f, 0x7ff, 0xffff, kLastCodePoint};
  std::vector<Utf8Sequence> out;
  for (const auto& range : set.ranges())
    for (int length = 1; length <= 4; ++length) {
      const uint32_t low = std::max(range.low, length == 1 ? 0 : kLast[length - 1] + 1);
      const uint32_t high = std::min(range.high, kLast[length]);
      if (low <= high) split(low, high, length, out);
    }
  return out;
}

bool unicode_class(std::string_view name, CodePoints& out) {
  if (name == "Any") {
    out = CodePoints::all();
    return true;
  }
  if (name == "ASCII") {
    out = CodePoints(0, 0x7f);
    return true;
  }
  if (name.starts_with("General_Category=")) name.remove_prefix(17);
  if (name.starts_with("gc=")) name.remove_prefix(3);
  const bool space = name == "White_Space", alphabetic = name == "Alphabetic";
  const uint32_t bits = space        ? 0
                        : alphabetic ? category_bits("L") | category_bits("Nl")
                                     : category_bits(name);
  if (!space && !bits) return false;
  // Nothing is assigned between the ideographs and the tags, and only private use follows those.
  constexpr CodePoints::Range kAssigned[] = {{0, 0x33fff}, {0xe0000, 0xe0fff}};
  for (const auto& range : kAssigned)
    for (uint32_t c = range.low; c <= range.high; ++c)
      if (space ? is_white_space(c) : (bits >> utf8proc_category(int32_t(c)) & 1) != 0) out.add(c, c);
  if (bits >> UTF8PROC_CATEGORY_CO & 1)
    for (const uint32_t plane : {0xf0000u, 0x100000u}) out.add(plane, plane + 0xfffd);
  return true;
}

}  // namespace cairn::text::constrain
