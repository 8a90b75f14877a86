// Sets of Unicode scalar values, and the byte sequences that spell them in UTF-8.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace cairn::text::constrain {

inline constexpr uint32_t kLastCodePoint = 0x10ffff;

class CodePoints {
 public:
  struct Range {
    uint32_t low, high;  // both included
    bool operator==(const Range&) const = default;
  };

  CodePoints() = default;
  CodePoints(uint32_t low, uint32_t high) { add(low, high); }
  static CodePoints all();  // every scalar value: surrogates are none

  void add(uint32_t low, uint32_t high);  // surrogates among them are left out
  void add(const CodePoints&);
  void add_other_case();  // what differs from a member in case only, by Unicode's simple mappings

  CodePoints complement() const;
  CodePoints intersect(const CodePoints&) const;
  bool contains(uint32_t) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }  // ascending, neither touching nor overlapping

 private:
  void insert(uint32_t low, uint32_t high);
  std::vector<Range> ranges_;
};

// One to four byte ranges: all the sequences they make are characters of the set.
struct Utf8Sequence {
  struct Byte {
    uint8_t low, high;
  } bytes[4];
  int length = 0;
};
std::vector<Utf8Sequence> utf8_sequences(const CodePoints&);

// A Unicode general category ("L", "Lu", "Letter", ...) or one of White_Space, Any, Alphabetic; false: not
// known.
bool unicode_class(std::string_view name, CodePoints& out);

}  // namespace cairn::text::constrain
