#include "text/chars_map.h"

#include <cstring>

#include "base/error.h"
#include "text/utf8.h"

namespace cairn::text {

CharsMap::CharsMap(std::string_view blob, const std::string& place) {
  if (blob.empty()) return;
  uint32_t bytes = 0;
  if (blob.size() < sizeof bytes)
    fail(ErrorKind::invalid_file, "{}: the normalisation rules have {} bytes, too few for their header",
         place, blob.size());
  std::memcpy(&bytes, blob.data(), sizeof bytes);
  blob.remove_prefix(sizeof bytes);
  if (bytes % 4 != 0 || bytes > blob.size())
    fail(ErrorKind::invalid_file, "{}: the normalisation rules name a trie of {} bytes, but {} follow", place,
         bytes, blob.size());
  units_.resize(bytes / 4);
  if (bytes > 0) std::memcpy(units_.data(), blob.data(), bytes);  // an empty vector has no address
  strings_ = blob.substr(bytes);
}

std::string_view CharsMap::replacement(uint32_t offset) const {
  if (offset >= strings_.size()) return {};
  const size_t end = std::min(strings_.find('\0', offset), strings_.size());
  return std::string_view(strings_).substr(offset, end - offset);
}

// A unit: bit 31 marks a leaf's value; else bits 0 to 7 are the label, bit 8 says that a leaf follows, bits
// 10 to 30 are the offset of the children, shifted by 8 when bit 9 is set.
template <typename F>
void CharsMap::prefixes(std::string_view text, F&& f) const {
  const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  if (units_.empty()) return;
  size_t position = offset(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    position ^= uint8_t(text[i]);
    if (position >= units_.size()) return;
    const uint32_t unit = units_[position];
    if ((unit & 0x800000ffu) != uint8_t(text[i])) return;
    position ^= offset(unit);
    if (position >= units_.size()) return;
    if (unit >> 8 & 1)
      if (!f(i + 1, units_[position] & 0x7fffffffu)) return;
  }
}

std::optional<CharsMap::Rule> CharsMap::longest(std::string_view text) const {
  size_t length = 0;
  uint32_t value = 0;
  prefixes(text, [&](size_t n, uint32_t v) {
    length = n, value = v;
    return true;
  });
  if (length == 0) return std::nullopt;
  return Rule{length, replacement(value)};
}

std::optional<CharsMap::Rule> CharsMap::shortest(std::string_view text) const {
  std::optional<Rule> rule;
  prefixes(text, [&](size_t n, uint32_t v) {
    rule = Rule{n, replacement(v)};
    return false;
  });
  return rule;
}

}  // namespace cairn::text
