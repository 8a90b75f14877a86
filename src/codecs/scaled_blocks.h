// Forms of published checkpoints whose codes and scales are tensors of their own: e4m3 with scales, and int4
// with scales and zeros. Here a row's codes stand together with what scales them, in blocks; split_weight.h
// makes the blocks. No file holds them, so they have no ggml type.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::codecs {

// The 8-bit float of 4 exponent and 3 mantissa bits without infinities: bias 7, 0x7f and 0xff are NaN
// (Micikevicius et al. 2022, "FP8 Formats for Deep Learning").
inline float e4m3_to_float(uint8_t code) {
  const uint32_t sign = uint32_t(code & 0x80) << 24, magnitude = code & 0x7f;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  // As the bits of a float it is 2^120 too small, subnormal or not.
  return std::bit_cast<float>(sign |
                              std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 20) * 0x1p120f));
}

struct BlockE4M3 {  // y = scale * e4m3(codes[e])
  static constexpr int kElements = 128;
  static constexpr std::string_view kName = "e4m3_g128";
  float scale;
  uint8_t codes[128];
};
static_assert(sizeof(BlockE4M3) == 132);

// y = scale * (q - zero); q of element e is nibble e % 2 (low first) of qs[e / 2]; zero is 0 to 16.
#pragma pack(push, 1)
struct BlockInt4G32 {
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "int4_g32";
  float scale;
  uint8_t zero;
  uint8_t qs[16];
};
struct BlockInt4G128 {
  static constexpr int kElements = 128;
  static constexpr std::string_view kName = "int4_g128";
  float scale;
  uint8_t zero;
  uint8_t qs[64];
};
#pragma pack(pop)
static_assert(sizeof(BlockInt4G32) == 21 && sizeof(BlockInt4G128) == 69);

void decode_e4m3(const std::byte* codes, float* values, int64_t count);  // plain, no scale
void decode_e4m3_g128(const std::byte* blocks, float* values, int64_t count);
void decode_int4_g32(const std::byte* blocks, float* values, int64_t count);
void decode_int4_g128(const std::byte* blocks, float* values, int64_t count);

}  // namespace cairn::codecs
