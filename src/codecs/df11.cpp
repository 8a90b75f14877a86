#include "codecs/df11.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::codecs {
namespace {

constexpr int kFirstPointer = 240;
// Of the first look-up: at 12 bits most hold four or five codes, and the table fits the first-level cache.
constexpr int kBits = 12, kMostAtOnce = 6;
constexpr int kLookUps = 4;  // of kBits in what 8 bytes hold from any bit on, 57 bits
// Past a block its last code's bytes may be read, and what a word of 8 bytes holds behind them.
constexpr int64_t kReadBehind = 32;
constexpr uint8_t kNoGap = 255;
// Elements whose exponents wait in the first-level cache for signs and mantissas.
constexpr int64_t kSlack = kMostAtOnce * kLookUps + 8;

uint64_t big_endian(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, 8);
  return __builtin_bswap64(word);
}
const uint8_t* bytes_of(std::span<const std::byte> span) {
  return reinterpret_cast<const uint8_t*>(span.data());
}

void merge(const uint8_t* exponents, const uint8_t* sign_mantissa, int64_t count, uint16_t* to) {
  const auto one = [&](int64_t i) {
    to[i] = uint16_t((sign_mantissa[i] & 0x80) << 8 | exponents[i] << 7 | (sign_mantissa[i] & 0x7f));
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    // Sixteen in registers, which every baseline has.
    using Bytes = uint8_t __attribute__((vector_size(16)));
    using Words = uint16_t __attribute__((vector_size(16)));
    Bytes e, s;
    std::memcpy(&e, exponents + i, 16);
    std::memcpy(&s, sign_mantissa + i, 16);
    // The high byte is the sign and 7 bits of the exponent, the low one its last bit and the mantissa.
    const Bytes high = (s & 0x80) | (e >> 1), low = (e << 7) | (s & 0x7f);
    const Words first =
        Words(__builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    const Words second = Words(
        __builtin_shufflevector(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    std::memcpy(to + i, &first, 16);
    std::memcpy(to + i + 8, &second, 16);
  }
  for (; i < count; ++i) one(i);
}

}  // namespace

Df11Group::Df11Group(const Df11Fields& fields, std::string where)
    : fields_(fields), where_(std::move(where)) {
  const auto refuse = [&](const char* field, const std::string& why) {
    fail(ErrorKind::invalid_file, "{}: field {} {}", where_, field, why);
  };
  const auto require_bytes = [&](const char* field, size_t bytes, int64_t wanted, const char* for_what) {
    if (int64_t(bytes) != wanted)
      refuse(field, fmt::format("has {} bytes; {} needs {}", bytes, for_what, wanted));
  };
  if (fields_.sign_mantissa.empty()) refuse("sign_mantissa", "is empty");
  if (elements() > int64_t{UINT32_MAX})
    refuse("sign_mantissa", fmt::format("has {} elements; a group holds at most 2^32 - 1", elements()));
  if (fields_.encoded_exponent.empty()) refuse("encoded_exponent", "is empty");
  blocks_ = ceil_div(int64_t(fields_.encoded_exponent.size()), kDf11BlockBytes);

  const size_t rows = fields_.luts.size() / 256;
  if (fields_.luts.size() % 256 != 0 || rows < 2 || rows > size_t(kDf11MostTables) + 1)
    refuse("luts", fmt::format("has {} bytes; it must be 1 to {} tables and a row of lengths, 256 bytes each",
                               fields_.luts.size(), kDf11MostTables));
  tables_ = int(rows) - 1;
  const uint8_t* lengths = bytes_of(fields_.luts) + 256 * tables_;
  for (int e = 0; e < 256; ++e)
    if (lengths[e] > (e < kFirstPointer ? kDf11MostBits : 0))
      refuse("luts", fmt::format("gives the exponent {} a code of {} bits; at most {} are possible", e,
                                 lengths[e], e < kFirstPointer ? kDf11MostBits : 0));

  require_bytes("gaps", fields_.gaps.size(), blocks_ * kDf11GapBytesPerBlock,
                fmt::format("{} bytes of codes", fields_.encoded_exponent.size()).c_str());
  require_bytes("output_positions", fields_.output_positions.size(), 4 * (blocks_ + 1),
                fmt::format("{} blocks", blocks_).c_str());
  if (position(0) != 0) refuse("output_positions", fmt::format("begins with {}, not 0", position(0)));
  for (int64_t b = 0; b < blocks_; ++b) {
    const int64_t count = position(b + 1) - position(b);
    if (count < 0 || count > kDf11MostInBlock)
      refuse("output_positions", fmt::format("goes from {} to {} in block {}; a block holds 0 to {} elements",
                                             position(b), position(b + 1), b, kDf11MostInBlock));
    most_in_block_ = std::max(most_in_block_, count);
  }
  if (position(blocks_) != elements())
    refuse("output_positions",
           fmt::format("ends with {}; sign_mantissa has {} elements", position(blocks_), elements()));

  entries_.resize(size_t{1} << kBits);
  for (uint32_t window = 0; window < entries_.size(); ++window) {
    uint64_t exponents = 0;
    int used = 0, count = 0;
    for (; count < kMostAtOnce; ++count) {
      const Code code = first_code(window << (32 - kBits) << used, kBits - used);
      if (code.bits == 0) break;
      exponents |= uint64_t(code.exponent) << (8 * count);
      used += code.bits;
    }
    entries_[window] = exponents | uint64_t(count) << 48 | uint64_t(used) << 56;
  }
}

int64_t Df11Group::position(int64_t block) const {
  uint32_t element;
  std::memcpy(&element, fields_.output_positions.data() + 4 * block, 4);
  return element;
}

int Df11Group::gap(int64_t chunk) const {
  const uint8_t* gaps = bytes_of(fields_.gaps);
  const int64_t bit = 5 * chunk, byte = bit / 8;
  int both = gaps[byte] << 8;
  if (bit % 8 > 3) both |= gaps[byte + 1];  // 5 bits from there on end in the next byte
  return both >> (11 - bit % 8) & 31;
}

// The code that `window` begins with, of whose bits, highest first, only `known` are. None when they do not
// decide, or the tables hold no code there: what lies between codes may be anything, also in sound files.
Df11Group::Code Df11Group::first_code(uint32_t window, int known) const {
  const uint8_t* luts = bytes_of(fields_.luts);
  const uint8_t* lengths = luts + 256 * tables_;
  int table = 0;
  for (int depth = 0; depth < 4 && known > 8 * depth; ++depth) {
    const int open = std::max(0, 8 * (depth + 1) - known);  // bits of this byte that are not known
    const uint32_t byte = (window >> (24 - 8 * depth) & 0xff) >> open << open;
    const uint8_t entry = luts[256 * table + int(byte)];
    for (uint32_t other = byte; other < byte + (1u << open); ++other)
      if (luts[256 * table + int(other)] != entry) return {};
    if (entry < kFirstPointer) {
      const int bits = lengths[entry];
      return bits > 8 * depth && bits <= 8 * (depth + 1) && bits <= known ? Code{entry, bits} : Code{};
    }
    table = 256 - entry;
    if (table >= tables_) return {};
  }
  return {};
}

std::vector<uint32_t> Df11Group::short_codes(int bits, int most) const {
  assert(bits <= 16 && most <= 3);
  std::vector<uint32_t> all(size_t{1} << bits);
  for (uint32_t window = 0; window < all.size(); ++window) {
    uint32_t used = 0, count = 0, entry = 0;
    for (; int(count) < most; ++count) {
      const Code code = first_code(window << (32 - bits) << used, bits - int(used));
      if (code.bits == 0) break;
      entry |= uint32_t(code.exponent) << (8 * count);
      used += uint32_t(code.bits);
    }
    all[window] = entry | count << 24 | used << 26;
  }
  return all;
}

// The exponents of the first `count` elements of a block; room for kSlack more is there. begins, if not null,
// gets for each chunk of the block the bit at which its first code begins, or kNoGap. False when the codes
// are not what the positions and gaps say; after a part of a block its end is not looked at.
bool Df11Group::decode_block(int64_t block, int64_t count, uint8_t* exponents, uint8_t* begins) const {
  const auto size = int64_t(fields_.encoded_exponent.size());
  const int64_t begin = block * kDf11BlockBytes;
  const uint8_t* codes = bytes_of(fields_.encoded_exponent) + begin;
  uint8_t last[kDf11BlockBytes + kReadBehind];
  if (begin + kDf11BlockBytes + kReadBehind > size) {
    const int64_t there = std::min<int64_t>(size - begin, sizeof last);
    std::memcpy(last, codes, size_t(there));
    std::memset(last + there, 0, sizeof last - size_t(there));
    codes = last;
  }
  // The last code may fill all there is of a last block in which none begins.
  const bool none_behind = position(block + 1) == elements() && blocks_ - block <= 2;
  const bool is_last = block + 1 == blocks_ || none_behind;
  if (is_last && size - begin > kDf11BlockBytes + kDf11MostBits / 8) return false;
  if (count == 0 && position(block + 1) == position(block)) return is_last && block > 0;
  // Where the block's last code ends; of the last one up to 7 bits fill a byte.
  const int64_t end =
      is_last ? 8 * (size - begin) : 8 * kDf11BlockBytes + gap((block + 1) * kDf11ChunksPerBlock);
  int64_t at = gap(block * kDf11ChunksPerBlock), done = 0;
  const uint64_t* const entries = entries_.data();
  if (!begins)
    while (done + kMostAtOnce * kLookUps <= count && at <= end) {
      uint64_t window = big_endian(codes + at / 8) << (at % 8);
      int used = 0;
      bool stuck = false;
      for (int i = 0; i < kLookUps; ++i) {
        const uint64_t entry = entries[window >> (64 - kBits)];
        std::memcpy(exponents + done, &entry, 8);
        const int bits = int(entry >> 56);
        done += int64_t(entry >> 48 & 0xff);
        used += bits;
        window <<= bits;
        stuck |= bits == 0;
      }
      at += used;
      if (!stuck) continue;
      const Code code = first_code(uint32_t((big_endian(codes + at / 8) << (at % 8)) >> 32), 32);
      if (code.bits == 0) return false;
      exponents[done++] = uint8_t(code.exponent);
      at += code.bits;
    }
  while (done < count && at < end) {
    if (begins && at < 8 * kDf11BlockBytes && begins[at / 64] == kNoGap) begins[at / 64] = uint8_t(at % 64);
    const uint64_t window = big_endian(codes + at / 8) << (at % 8), entry = entries[window >> (64 - kBits)];
    const auto bits = int64_t(entry >> 56), several = int64_t(entry >> 48 & 0xff);
    if (bits > 0 && several <= count - done && at % 64 + bits <= 64) {  // all begin in the chunk
      std::memcpy(exponents + done, &entry, 8);
      done += several, at += bits;
      continue;
    }
    const Code code = first_code(uint32_t(window >> 32), 32);
    if (code.bits == 0) return false;
    exponents[done++] = uint8_t(code.exponent);
    at += code.bits;
  }
  if (done < count || at > end) return false;
  const bool whole = count == position(block + 1) - position(block);
  return !whole || (is_last ? end - at < 8 : at == end);
}

void Df11Group::refuse_block(int64_t block) const {
  fail(ErrorKind::invalid_file,
       "{}: field encoded_exponent: block {} of {} holds other codes than luts, gaps and the {} elements of "
       "output_positions say; the file is damaged or cut off",
       where_, block, blocks_, position(block + 1) - position(block));
}

// The last block that begins at an element or before it.
int64_t Df11Group::block_of(int64_t element) const {
  int64_t low = 0, high = blocks_;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (position(middle) <= element ? low : high) = middle;
  }
  return low;
}

Range Df11Group::blocks_of(int64_t first, int64_t last) const {
  return first < last ? Range{block_of(first), block_of(last - 1) + 1} : Range{};
}

void Df11Group::decode(int64_t first, int64_t last, uint16_t* to) const {
  assert(first >= 0 && first <= last && last <= elements());
  uint8_t exponents[kDf11MostInBlock + kSlack];
  for (int64_t block = block_of(first); first < last; ++block) {
    const int64_t begin = position(block), end = std::min(position(block + 1), last);
    if (end <= first) continue;
    if (!decode_block(block, end - begin, exponents, nullptr)) refuse_block(block);
    merge(exponents + (first - begin), bytes_of(fields_.sign_mantissa) + first, end - first, to);
    to += end - first;
    first = end;
  }
}

void Df11Group::verify(Range blocks, bool gaps) const {
  std::vector<uint8_t> exponents(size_t(kDf11MostInBlock + kSlack)), begins(kDf11ChunksPerBlock);
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    std::fill(begins.begin(), begins.end(), kNoGap);
    if (!decode_block(block, position(block + 1) - position(block), exponents.data(),
                      gaps ? begins.data() : nullptr))
      refuse_block(block);
    for (int64_t chunk = 0; gaps && chunk < kDf11ChunksPerBlock; ++chunk) {
      const int first = begins[size_t(chunk)], stated = gap(block * kDf11ChunksPerBlock + chunk);
      // Nothing begins in chunks past the end, and nobody asks for their gaps.
      if (first != kNoGap && first != stated)
        fail(ErrorKind::invalid_file,
             "{}: field gaps: the first code of chunk {} begins at bit {}, not {}; the file is damaged",
             where_, block * kDf11ChunksPerBlock + chunk, first, stated);
    }
  }
}

}  // namespace cairn::codecs
