#include "text/unicode.h"

#include <utf8proc.h>

namespace cairn::text {
namespace {

constexpr uint16_t ascii_class(int c) {
  if (c >= 'A' && c <= 'Z') return kUpper;
  if (c >= 'a' && c <= 'z') return kLower;
  if (c >= '0' && c <= '9') return kNumber | kDecimal;
  if (c >= 9 && c <= 13) return kSpace | kControl;
  if (c == ' ') return kSpace;
  if (c < 32 || c == 127) return kControl;
  if (c == '$' || c == '+' || c == '<' || c == '=' || c == '>' || c == '^' || c == '`' || c == '|' ||
      c == '~')
    return kSymbol;
  return kPunctuation;
}

}  // namespace

#define CAIRN_ROW(r)                                                                              \
  ascii_class(r), ascii_class(r + 1), ascii_class(r + 2), ascii_class(r + 3), ascii_class(r + 4), \
      ascii_class(r + 5), ascii_class(r + 6), ascii_class(r + 7)
const uint16_t kAsciiClass[128] = {CAIRN_ROW(0),  CAIRN_ROW(8),   CAIRN_ROW(16),  CAIRN_ROW(24),
                                   CAIRN_ROW(32), CAIRN_ROW(40),  CAIRN_ROW(48),  CAIRN_ROW(56),
                                   CAIRN_ROW(64), CAIRN_ROW(72),  CAIRN_ROW(80),  CAIRN_ROW(88),
                                   CAIRN_ROW(96), CAIRN_ROW(104), CAIRN_ROW(112), CAIRN_ROW(120)};
#undef CAIRN_ROW

uint16_t char_class_slow(uint32_t c) {
  const uint16_t space = is_white_space(c) ? uint16_t{kSpace} : uint16_t{0};
  switch (utf8proc_category(utf8proc_int32_t(c))) {
    case UTF8PROC_CATEGORY_LU: return kUpper;
    case UTF8PROC_CATEGORY_LL: return kLower;
    case UTF8PROC_CATEGORY_LT: return kTitle;
    case UTF8PROC_CATEGORY_LM: return kModifier;
    case UTF8PROC_CATEGORY_LO: return kOtherLetter;
    case UTF8PROC_CATEGORY_MN: return kMark | kNonspacing;
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return kMark;
    case UTF8PROC_CATEGORY_ND: return kNumber | kDecimal;
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return kNumber;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return kSymbol;
    case UTF8PROC_CATEGORY_CC: return kControl | space;
    case UTF8PROC_CATEGORY_CF: return kFormat;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return space;
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS: return kPrivate;
    default: return 0;  // not assigned
  }
}

bool is_white_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_word(uint32_t c) {
  if (char_class(c) & (kLetter | kMark | kDecimal)) return true;
  if (c == '_' || c == 0x200c || c == 0x200d) return true;
  const auto category = utf8proc_category(utf8proc_int32_t(c));
  // Other_Alphabetic outside letters and marks: the circled and squared Latin letters.
  return category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_PC ||
         (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
         (c >= 0x1f170 && c <= 0x1f189);
}

bool is_cjk_ideograph(uint32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

}  // namespace cairn::text
