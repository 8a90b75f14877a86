// What Python's str methods know beyond utf8proc's categories and simple case mappings. Sorted by code point.
#pragma once

#include <string_view>
#include <vector>

namespace cairn::text::jinja {

struct PointRange {
  char32_t first, last;
};
struct PointMapping {
  char32_t from;
  std::u32string_view to;
};

extern const std::vector<PointRange> kOtherLower, kOtherUpper;    // cased outside Ll, Lu
extern const std::vector<PointRange> kOtherDigit, kOtherNumeric;  // isdigit outside Nd, isnumeric outside N*
extern const std::vector<PointRange> kCaseIgnorable;              // skipped when the final sigma is sought
extern const std::vector<PointMapping> kUpper, kTitle, kFold;     // one code point to several

}  // namespace cairn::text::jinja
