#include "text/scanner.h"

#include <cstdint>

#include "text/unicode.h"
#include "text/utf8.h"

namespace cairn::text {
namespace patterns {

const char* const kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kGpt2Tiktoken =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)";
const char* const kCl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kCl100kTiktoken =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";
const char* const kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace patterns

namespace {

struct At {
  uint16_t bits;
  uint32_t bytes;
};

inline At class_at(const char* p) {
  const uint8_t b = uint8_t(*p);
  if (b < 128) return {kAsciiClass[b], 1};
  const CodePoint c = decode_valid(p);
  return {char_class_slow(c.value), c.bytes};
}

// Skips characters with any of `in`; with in == 0, characters with none of `out`.
template <uint16_t in, uint16_t out>
inline const char* skip(const char* p, const char* end) {
  while (p < end) {
    const At c = class_at(p);
    if (in ? !(c.bits & in) : (c.bits & out) != 0) break;
    p += c.bytes;
  }
  return p;
}

inline bool is_newline(char c) { return c == '\r' || c == '\n'; }

// The end of a contraction ('s 't 're 've 'm 'll 'd) whose apostrophe is at p, or p. Without case, U+017F
// also counts as s: it is the only character outside ASCII that folds to one of these letters.
template <bool ignore_case>
inline const char* contraction(const char* p, const char* end) {
  if (end - p < 2 || *p != '\'') return p;
  const auto letter = [&](const char* at) {
    return ignore_case ? char(*at | ((*at & 0xc0) == 0x40 ? 0x20 : 0)) : *at;
  };
  const char a = letter(p + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
  if (end - p < 3) return p;
  if (ignore_case && p[1] == '\xc5' && p[2] == '\xbf') return p + 3;
  const char b = letter(p + 2);
  if ((a == 'l' && b == 'l') || ((a == 'v' || a == 'r') && b == 'e')) return p + 3;
  return p;
}

// \s+(?!\S)|\s+ : all of the run when it ends the text, else all but its last character, else that one.
inline const char* white_space(const char* p, const char* end) {
  const char* last = p;
  const char* q = p;
  while (q < end) {
    const At c = class_at(q);
    if (!(c.bits & kSpace)) break;
    last = q;
    q += c.bytes;
  }
  return q == end || last == p ? q : last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ : the run up to its last newline first.
template <bool whole_tail>
inline const char* white_space_newlines(const char* p, const char* end) {
  const char *last = p, *newline = nullptr;
  const char* q = p;
  while (q < end) {
    const At c = class_at(q);
    if (!(c.bits & kSpace)) break;
    last = q;
    q += c.bytes;
    if (is_newline(*last)) newline = q;
  }
  if (whole_tail && q == end) return q;
  if (newline) return newline;
  return q == end || last == p ? q : last;
}

inline const char* digits(const char* p, const char* end, int most) {
  for (; most > 0 && p < end; --most) {
    const At c = class_at(p);
    if (!(c.bits & kNumber)) break;
    p += c.bytes;
  }
  return p;
}

class Gpt2Scanner final : public Scanner {
 public:
  const char* word_end(const char* p, const char* end) const override {
    if (*p == '\'') {
      const char* q = contraction<false>(p, end);
      if (q != p) return q;
    }
    const char* q = *p == ' ' && p + 1 < end ? p + 1 : p;
    const At c = class_at(q);
    if (c.bits & kLetter) return skip<kLetter, 0>(q + c.bytes, end);
    if (c.bits & kNumber) return skip<kNumber, 0>(q + c.bytes, end);
    if (!(c.bits & kSpace)) return skip<0, kSpace | kLetter | kNumber>(q + c.bytes, end);
    return white_space(p, end);
  }
};

// letters: what a word is made of; kMark joins kLetter for Qwen 3.5.
template <int most_digits, bool whole_tail, uint16_t letters>
class Cl100kScanner final : public Scanner {
 public:
  const char* word_end(const char* p, const char* end) const override {
    if (*p == '\'') {
      const char* q = contraction<true>(p, end);
      if (q != p) return q;
    }
    const At c = class_at(p);
    const char* q = p + c.bytes;
    if (c.bits & letters) return skip<letters, 0>(q, end);
    if (c.bits & kNumber) return digits(q, end, most_digits - 1);
    if (!is_newline(*p) && q < end) {
      const At d = class_at(q);
      if (d.bits & letters) return skip<letters, 0>(q + d.bytes, end);
      if (*p == ' ' && !(d.bits & (kSpace | kNumber))) return others(q + d.bytes, end);
    }
    if (!(c.bits & kSpace)) return others(q, end);
    return white_space_newlines<whole_tail>(p, end);
  }

 private:
  static const char* others(const char* p, const char* end) {
    p = skip<0, kSpace | letters | kNumber>(p, end);
    while (p < end && is_newline(*p)) ++p;
    return p;
  }
};

constexpr uint16_t kUpperLike = kUpper | kTitle | kModifier | kOtherLetter | kMark;
constexpr uint16_t kLowerLike = kLower | kModifier | kOtherLetter | kMark;

template <int most_digits, bool contractions>
class O200kScanner final : public Scanner {
 public:
  const char* word_end(const char* p, const char* end) const override {
    const At c = class_at(p);
    const char* after = p + c.bytes;
    const bool may_lead = !is_newline(*p) && !(c.bits & (kLetter | kNumber));
    // In the pattern's order: the lower-ending branch with and without its optional first character, then the
    // upper-starting branch likewise.
    const char* q = may_lead ? lower_ending(after, end) : nullptr;
    if (!q) q = lower_ending(p, end);
    if (!q && may_lead) q = upper_starting(after, end);
    if (!q) q = upper_starting(p, end);
    if (q) return contractions ? contraction<true>(q, end) : q;
    if (c.bits & kNumber) return digits(after, end, most_digits - 1);
    if (*p == ' ' && after < end) {
      const At d = class_at(after);
      if (!(d.bits & (kSpace | kLetter | kNumber))) return others(after + d.bytes, end);
    }
    if (!(c.bits & kSpace)) return others(after, end);
    return white_space_newlines<false>(p, end);
  }

 private:
  // [upper-like]*[lower-like]+ : the run of upper-like characters is given back until a lower-like one is
  // found.
  static const char* lower_ending(const char* p, const char* end) {
    const char* last_lower_end = nullptr;
    while (p < end) {
      const At c = class_at(p);
      if (!(c.bits & kUpperLike)) break;
      p += c.bytes;
      if (c.bits & kLowerLike) last_lower_end = p;
    }
    if (p < end) {
      const At c = class_at(p);
      if (c.bits & kLowerLike) return skip<kLowerLike, 0>(p + c.bytes, end);
    }
    return last_lower_end;
  }

  // [upper-like]+[lower-like]*
  static const char* upper_starting(const char* p, const char* end) {
    const char* q = skip<kUpperLike, 0>(p, end);
    return q == p ? nullptr : skip<kLowerLike, 0>(q, end);
  }

  static const char* others(const char* p, const char* end) {
    p = skip<0, kSpace | kLetter | kNumber>(p, end);
    while (p < end && (is_newline(*p) || *p == '/')) ++p;
    return p;
  }
};

}  // namespace

std::unique_ptr<Scanner> scanner_for_pattern(std::string_view pattern) {
  if (pattern == patterns::kGpt2 || pattern == patterns::kGpt2Tiktoken)
    return std::make_unique<Gpt2Scanner>();
  if (pattern == patterns::kCl100k) return std::make_unique<Cl100kScanner<3, false, kLetter>>();
  if (pattern == patterns::kCl100kTiktoken) return std::make_unique<Cl100kScanner<3, true, kLetter>>();
  if (pattern == patterns::kQwen2) return std::make_unique<Cl100kScanner<1, false, kLetter>>();
  if (pattern == patterns::kQwen35) return std::make_unique<Cl100kScanner<1, false, kLetter | kMark>>();
  if (pattern == patterns::kO200k) return std::make_unique<O200kScanner<3, true>>();
  if (pattern == patterns::kTekken) return std::make_unique<O200kScanner<1, false>>();
  return nullptr;
}

}  // namespace cairn::text
