// DFloat11 ("70% Size, 100% Accuracy", arXiv 2504.11651): bf16 weights without loss in about 11 bits. Sign
// and mantissa are a byte, the exponent is a Huffman code. The unit is a group: the matrices of one block of
// a model, row-major, one after another. As published checkpoints hold a group:
//
//   sign_mantissa     u8 [elements], sign in bit 7
//   encoded_exponent  u8 [n], codes of 1 to 32 bits back to back, the highest bit of a byte first
//   gaps              5 bits for each chunk of 8 bytes of codes, the highest bit first: where in its chunk
//   the
//                     first code begins. Padded with zeros to whole blocks of 512 chunks
//   output_positions  u32 per block of 4096 bytes of codes: the first element whose code begins there; and a
//                     last one, the number of elements
//   luts              u8 [tables + 1][256]: table 0 is looked up with the first 8 bits of a code. An entry
//                     below 240 is the exponent, another means: look the next 8 bits up in table 256 - entry.
//                     The last row is the number of bits of each exponent's code, 0: has none
//   split_positions   i64: number of the first element of each matrix but the first
//
// Exponents from 240 on (infinity, NaN, magnitudes from 2^113) have no entry: such a group is stored plainly.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"

namespace cairn::codecs {

inline constexpr int64_t kDf11ChunkBytes = 8, kDf11ChunksPerBlock = 512;
inline constexpr int64_t kDf11BlockBytes = kDf11ChunkBytes * kDf11ChunksPerBlock;
inline constexpr int64_t kDf11GapBytesPerBlock = kDf11ChunksPerBlock * 5 / 8;
inline constexpr int64_t kDf11MostInBlock = kDf11BlockBytes * 8;  // codes of one bit
inline constexpr int kDf11MostTables = 16;
inline constexpr int kDf11MostBits = 32;

// Where the fields of a group lie; of any alignment.
struct Df11Fields {
  std::span<const std::byte> sign_mantissa, encoded_exponent, gaps, output_positions, luts;
  uint64_t bytes() const {
    return sign_mantissa.size() + encoded_exponent.size() + gaps.size() + output_positions.size() +
           luts.size();
  }
};

class Df11Group {
 public:
  // Checks sizes and positions, not the codes: verify() does. `where` begins every error: "model.safetensors:
  // group model.layers.0". What fields refer to must outlive the group. Throws Error(invalid_file) naming the
  // field.
  Df11Group(const Df11Fields&, std::string where);

  const Df11Fields& fields() const { return fields_; }
  const std::string& where() const { return where_; }
  int64_t elements() const { return int64_t(fields_.sign_mantissa.size()); }
  int64_t blocks() const { return blocks_; }
  int64_t position(int64_t block) const;  // its first element; of `blocks()` the number of elements
  int64_t most_in_block() const { return most_in_block_; }
  Range blocks_of(int64_t first, int64_t last) const;  // those that elements [first, last) are in

  // Elements [first, last) as bf16. Nothing is written outside of them, whatever the codes are. Throws
  // Error(invalid_file) for codes that are none or do not end where they should.
  void decode(int64_t first, int64_t last, uint16_t* to) const;
  // That whole blocks decode; and, which takes longer, that every gap is where a code begins.
  void verify(Range blocks, bool gaps = true) const;

  // The exponents of the codes that `bits` bits begin with, as many as fit: bits 0..7, 8..15, 16..23 are up
  // to `most` <= 3 of them, 24..25 is how many and 26..30 the bits they take. Zero: the first code is longer,
  // or none. For decoders that take several codes at a time.
  std::vector<uint32_t> short_codes(int bits, int most) const;

 private:
  struct Code {
    int exponent = 0, bits = 0;  // bits 0: none
  };
  Code first_code(uint32_t window, int known) const;
  int gap(int64_t chunk) const;
  int64_t block_of(int64_t element) const;
  bool decode_block(int64_t block, int64_t count, uint8_t* exponents, uint8_t* begins) const;
  [[noreturn]] void refuse_block(int64_t block) const;

  Df11Fields fields_;
  std::string where_;
  int64_t blocks_ = 0, most_in_block_ = 0;
  int tables_ = 0;
  std::vector<uint64_t> entries_;  // by the next kBits bits: up to 6 exponents, how many, how many bits
};

struct Df11Encoded {
  std::vector<std::byte> sign_mantissa, encoded_exponent, gaps, output_positions, luts;
  std::vector<int64_t> split_positions;
  double entropy = 0;  // bits per exponent: no code of single exponents needs fewer

  Df11Fields fields() const { return {sign_mantissa, encoded_exponent, gaps, output_positions, luts}; }
  uint64_t bytes() const { return fields().bytes() + split_positions.size() * sizeof(int64_t); }
};

struct Df11Result {
  std::optional<Df11Encoded> encoded;
  std::string why_not;  // the limit that the group breaks: it has to be stored plainly
};
// A group of bf16 matrices, of any alignment. The same bytes give the same codes everywhere.
Df11Result encode_df11(std::span<const std::span<const std::byte>> matrices);

// A group that takes more of its bf16 bytes than this is not worth its decoding.
inline constexpr double kDf11MostRatio = 0.95;

}  // namespace cairn::codecs
