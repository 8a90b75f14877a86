// Character properties, as bits, from utf8proc's tables. ASCII is a table look-up.
#pragma once

#include <cstdint>
#include <string_view>

namespace cairn::text {

enum CharClass : uint16_t {
  kUpper = 1,           // Lu
  kLower = 2,           // Ll
  kTitle = 4,           // Lt
  kModifier = 8,        // Lm
  kOtherLetter = 16,    // Lo
  kLetter = 31,         // \p{L}
  kMark = 32,           // \p{M}
  kNumber = 64,         // \p{N}
  kPunctuation = 128,   // \p{P}
  kSymbol = 256,        // \p{S}
  kSpace = 512,         // White_Space
  kControl = 1024,      // Cc
  kFormat = 2048,       // Cf
  kPrivate = 4096,      // Co, Cs
  kDecimal = 8192,      // Nd (and kNumber)
  kNonspacing = 16384,  // Mn (and kMark)
};

extern const uint16_t kAsciiClass[128];
uint16_t char_class_slow(uint32_t code_point);
inline uint16_t char_class(uint32_t c) { return c < 128 ? kAsciiClass[c] : char_class_slow(c); }

bool is_white_space(uint32_t code_point);  // Unicode's White_Space property
bool is_word(uint32_t code_point);  // \w: letters, marks, decimal digits, letter numbers, connectors, joiners
bool is_cjk_ideograph(uint32_t code_point);  // the ranges of BERT's "Chinese character"

}  // namespace cairn::text
