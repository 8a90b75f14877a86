#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <queue>

#include "base/checked.h"
#include "codecs/df11.h"

namespace cairn::codecs {
namespace {

constexpr int kExponents = 256, kFirstWithoutCode = 240;
constexpr int kEnd = kExponents;  // the symbol whose code fills the last byte

using Counts = std::array<uint64_t, kExponents + 1>;

struct Codes {
  std::array<uint8_t, kExponents + 1> bits = {};  // 0: no code
  std::array<uint32_t, kExponents + 1> code = {};
};

// Lengths of Huffman's codes. Equal counts are joined in the order in which they came, leaves by number.
std::array<uint8_t, kExponents + 1> huffman_lengths(const Counts& counts) {
  struct Node {
    uint64_t count;
    int left = -1, right = -1;
  };
  std::vector<Node> nodes;
  std::vector<int> symbols;
  using Entry = std::pair<uint64_t, int>;  // count, node: the least first
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  for (int s = 0; s <= kEnd; ++s)
    if (counts[size_t(s)] > 0) {
      queue.push({counts[size_t(s)], int(nodes.size())});
      nodes.push_back({counts[size_t(s)]});
      symbols.push_back(s);
    }
  while (queue.size() > 1) {
    const int left = queue.top().second;
    queue.pop();
    const int right = queue.top().second;
    queue.pop();
    nodes.push_back({nodes[size_t(left)].count + nodes[size_t(right)].count, left, right});
    queue.push({nodes.back().count, int(nodes.size()) - 1});
  }
  std::array<uint8_t, kExponents + 1> lengths = {};
  std::vector<uint8_t> depth(nodes.size(), 0);  // parents come after their children
  for (size_t n = nodes.size(); n-- > 0;) {
    if (nodes[n].left >= 0)
      depth[size_t(nodes[n].left)] = depth[size_t(nodes[n].right)] = uint8_t(depth[n] + 1);
    else
      lengths[size_t(symbols[n])] = depth[n];
  }
  return lengths;
}

// No code longer than 32 bits: the rarest symbols, more and more of them, are counted as one occurrence each.
std::array<uint8_t, kExponents + 1> limited_lengths(Counts counts) {
  auto lengths = huffman_lengths(counts);
  std::vector<int> rarest;
  for (int s = 0; s <= kEnd; ++s)
    if (counts[size_t(s)] > 0) rarest.push_back(s);
  std::stable_sort(rarest.begin(), rarest.end(),
                   [&](int a, int b) { return counts[size_t(a)] < counts[size_t(b)]; });
  for (size_t k = 2; *std::max_element(lengths.begin(), lengths.end()) > kDf11MostBits; ++k) {
    for (size_t i = 0; i < k; ++i) counts[size_t(rarest[i])] = 1;
    lengths = huffman_lengths(counts);
  }
  return lengths;
}

// Codes of the same length are neighbours, in the order of the symbols (canonical).
Codes make_codes(const Counts& counts) {
  Codes codes;
  codes.bits = limited_lengths(counts);
  uint64_t next = 0;
  for (int bits = 1; bits <= kDf11MostBits; ++bits, next <<= 1)
    for (int s = 0; s <= kEnd; ++s)
      if (codes.bits[size_t(s)] == bits) codes.code[size_t(s)] = uint32_t(next++);
  return codes;
}

// Empty when it takes more tables than the form has pointers for.
std::vector<std::byte> make_luts(const Codes& codes) {
  // What whole bytes a longer code begins with, shortest first; table t is for prefixes[t].
  std::vector<std::pair<int, uint32_t>> prefixes = {{0, 0}};  // bytes, value
  for (int depth = 1; depth < 4; ++depth)
    for (int s = 0; s < kExponents; ++s) {
      const int bits = codes.bits[size_t(s)];
      if (bits <= 8 * depth) continue;
      const std::pair<int, uint32_t> prefix = {depth, codes.code[size_t(s)] >> (bits - 8 * depth)};
      if (std::find(prefixes.begin(), prefixes.end(), prefix) == prefixes.end()) prefixes.push_back(prefix);
    }
  if (prefixes.size() > size_t(kDf11MostTables)) return {};
  std::vector<std::byte> luts((prefixes.size() + 1) * 256);
  const auto table_of = [&](int depth, uint32_t value) {
    return size_t(std::find(prefixes.begin(), prefixes.end(), std::pair(depth, value)) - prefixes.begin());
  };
  for (int s = 0; s < kExponents; ++s) {
    const int bits = codes.bits[size_t(s)];
    if (bits == 0) continue;
    const uint32_t code = codes.code[size_t(s)];
    for (int depth = 0;; ++depth) {
      const int rest = bits - 8 * depth;
      std::byte* const table =
          luts.data() + 256 * table_of(depth, depth == 0 ? 0 : uint32_t(uint64_t{code} >> rest));
      if (rest <= 8) {
        const uint32_t first = (code << (8 - rest)) & 0xff;
        std::fill_n(table + first, size_t{1} << (8 - rest), std::byte(s));
        break;
      }
      table[(code >> (rest - 8)) & 0xff] = std::byte(256 - table_of(depth + 1, code >> (rest - 8)));
    }
    luts[prefixes.size() * 256 + size_t(s)] = std::byte(bits);
  }
  return luts;
}

// Appends codes and remembers where chunks and blocks begin.
class Stream {
 public:
  Stream(Df11Encoded& to, uint64_t bits) : to_(to) {
    const auto bytes = int64_t((bits + 7) / 8), blocks = ceil_div(bytes, kDf11BlockBytes);
    to_.encoded_exponent.resize(size_t(bytes));
    to_.gaps.resize(size_t(blocks * kDf11GapBytesPerBlock));
    to_.output_positions.resize(size_t(blocks + 1) * 4);
    out_ = to_.encoded_exponent.data();
  }

  void append(uint32_t code, int bits, uint32_t element) {
    if (at_ >= next_chunk_) begin_chunk(element);
    at_ += uint64_t(bits);
    // At most 31 bits wait, so that 32 more fit.
    waiting_ = waiting_ << bits | code;
    count_ += bits;
    if (count_ >= 32) {
      count_ -= 32;
      const uint32_t word = __builtin_bswap32(uint32_t(waiting_ >> count_));
      std::memcpy(out_, &word, 4);
      out_ += 4;
    }
  }

  void finish(uint32_t end_code, int end_bits, uint32_t elements) {
    for (; count_ >= 8; ++out_) *out_ = std::byte(waiting_ >> (count_ -= 8));
    if (count_ > 0) {
      waiting_ = waiting_ << end_bits | end_code;
      count_ += end_bits;
      *out_ = std::byte(count_ >= 8 ? waiting_ >> (count_ - 8) : waiting_ << (8 - count_));
    }
    const size_t blocks = to_.output_positions.size() / 4;
    for (; block_ < blocks; ++block_) set_position(elements);
  }

 private:
  // The chunk before cannot have been skipped whole: a code has at most 32 bits.
  void begin_chunk(uint32_t element) {
    const uint64_t chunk = next_chunk_ / 64, gap = at_ - next_chunk_, bit = 5 * chunk;
    next_chunk_ += 64;
    const auto both = uint16_t(gap << (11 - bit % 8));  // of two bytes
    to_.gaps[size_t(bit / 8)] |= std::byte(both >> 8);
    if (both & 0xff) to_.gaps[size_t(bit / 8 + 1)] |= std::byte(both & 0xff);
    if (chunk % uint64_t(kDf11ChunksPerBlock) == 0) set_position(element), ++block_;
  }
  void set_position(uint32_t element) { std::memcpy(to_.output_positions.data() + 4 * block_, &element, 4); }

  Df11Encoded& to_;
  std::byte* out_ = nullptr;
  uint64_t at_ = 0, next_chunk_ = 0, waiting_ = 0;
  int count_ = 0;
  size_t block_ = 0;
};

double entropy_of(const Counts& counts, uint64_t elements) {
  double bits = 0;
  for (const uint64_t count : counts)
    if (count > 0) bits -= double(count) * std::log2(double(count) / double(elements));
  return bits / double(elements);
}

uint16_t word_at(const std::byte* from, size_t i) {
  uint16_t word;
  std::memcpy(&word, from + 2 * i, 2);
  return word;
}

}  // namespace

Df11Result encode_df11(std::span<const std::span<const std::byte>> matrices) {
  Df11Result result;
  uint64_t elements = 0;
  Counts counts = {};
  for (const auto matrix : matrices) {
    // Two sets of counters: neighbours are often equal, and a count waits for the one before it.
    Counts odd = {};
    const size_t n = matrix.size() / 2;
    for (size_t i = 0; i + 1 < n; i += 2) {
      ++counts[(word_at(matrix.data(), i) >> 7) & 0xff];
      ++odd[(word_at(matrix.data(), i + 1) >> 7) & 0xff];
    }
    if (n % 2 != 0) ++counts[(word_at(matrix.data(), n - 1) >> 7) & 0xff];
    for (size_t e = 0; e < counts.size(); ++e) counts[e] += odd[e];
    elements += n;
  }
  const auto not_worth = [&](std::string why) {
    result.why_not = std::move(why);
    return result;
  };
  if (elements == 0) return not_worth("it has no elements");
  if (elements > std::numeric_limits<uint32_t>::max())
    return not_worth(fmt::format("it has {} elements, past the 2^32 that positions count", elements));
  for (int e = kFirstWithoutCode; e < kExponents; ++e)
    if (counts[size_t(e)] > 0)
      return not_worth(fmt::format("{} elements are infinite, not numbers or past 2^113 (exponent {})",
                                   counts[size_t(e)], e));
  Df11Encoded encoded;
  encoded.entropy = entropy_of(counts, elements);
  counts[kEnd] = 1;
  const Codes codes = make_codes(counts);
  encoded.luts = make_luts(codes);
  if (encoded.luts.empty())
    return not_worth(fmt::format("its codes need more than {} look-up tables", kDf11MostTables));

  uint64_t bits = 0;
  for (size_t e = 0; e < kExponents; ++e) bits += counts[e] * codes.bits[e];
  int64_t begin = 0;
  for (const auto matrix : matrices) {
    if (begin > 0) encoded.split_positions.push_back(begin);
    begin += int64_t(matrix.size() / 2);
  }
  Stream stream(encoded, bits);
  encoded.sign_mantissa.resize(elements);
  const uint64_t bytes = encoded.bytes();
  if (double(bytes) > kDf11MostRatio * 2 * double(elements))
    return not_worth(fmt::format("it would take {:.1f} % of its bf16 bytes, more than {:.0f} %",
                                 100 * double(bytes) / (2 * double(elements)), 100 * kDf11MostRatio));
  uint32_t element = 0;
  for (const auto matrix : matrices)
    for (size_t i = 0; i < matrix.size() / 2; ++i, ++element) {
      const uint16_t word = word_at(matrix.data(), i);
      encoded.sign_mantissa[element] = std::byte(((word >> 8) & 0x80) | (word & 0x7f));
      const size_t exponent = (word >> 7) & 0xff;
      stream.append(codes.code[exponent], codes.bits[exponent], element);
    }
  stream.finish(codes.code[kEnd], codes.bits[kEnd], element);
  result.encoded = std::move(encoded);
  return result;
}

}  // namespace cairn::codecs
