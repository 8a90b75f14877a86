// What every block codec does around its own block: walking a row and refusing what no block can hold.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include "base/error.h"
#include "base/float16.h"

namespace cairn::codecs {

// decode_block(const Block&, float*) for each block in turn. Blocks are copied out: a mapped row of 17-byte
// blocks has no alignment.
template <typename Block, auto decode_block>
void decode_blocks(const std::byte* blocks, float* values, int64_t count) {
  for (int64_t done = 0; done < count; done += Block::kElements, blocks += sizeof(Block)) {
    Block block;
    std::memcpy(&block, blocks, sizeof block);
    decode_block(block, values + done);
  }
}

// No weight is this large; below it the squares and sums of the encoders stay finite.
inline constexpr float kLargestElement = 1e12f;

// encode_block(const float*, const float* importance, Block&) for each block. Formats with a shared scale
// hold finite numbers only: NaN and infinity in the source are an Error that names the element, not a silent
// zero.
template <typename Block, auto encode_block>
void encode_blocks(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  for (int64_t done = 0; done < count; done += Block::kElements, blocks += sizeof(Block)) {
    for (int i = 0; i < Block::kElements; ++i)
      if (!(std::abs(values[done + i]) <= kLargestElement))
        fail(ErrorKind::invalid_argument,
             "element {} is {}, which {} cannot hold; keep this tensor as f32 or bf16", done + i,
             values[done + i], Block::kName);
    Block block{};
    encode_block(values + done, importance ? importance + done : nullptr, block);
    std::memcpy(blocks, &block, sizeof block);
  }
}

// The f16 scale of a block; refuses one that would become infinite.
inline uint16_t f16_scale(float scale, std::string_view format) {
  const uint16_t half = float_to_f16(scale);
  if ((half & 0x7c00u) == 0x7c00u)
    fail(ErrorKind::invalid_argument,
         "a block needs the scale {}, past the f16 limit 65504 of {}; keep this tensor as f32 or bf16", scale,
         format);
  return half;
}

// 1/d, or 0 where the quotient is useless: d is zero or so small that its inverse is infinite.
inline float inverse(float d) {
  const float i = 1.0f / d;
  return std::isfinite(i) ? i : 0.0f;
}

// Nearest integer in [low, high], halves away from zero. The bounds are applied before the conversion.
inline int nearest(float v, int low, int high) {
  const float r = std::round(v);
  if (!(r > float(low))) return low;
  return r < float(high) ? int(r) : high;
}

// The element of largest magnitude, sign kept; the first of equals.
inline float signed_max(const float* x, int count) {
  float best = 0;
  for (int i = 0; i < count; ++i)
    if (std::abs(x[i]) > std::abs(best)) best = x[i];
  return best;
}

}  // namespace cairn::codecs
