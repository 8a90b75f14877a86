// Forms of published checkpoints whose codes and scales are tensors of their own: e4m3 with scales, and codes
// of 2, 3, 4 or 8 bits with scales and zeros. Here a row's codes stand together with what scales them, in
// blocks; split_weight.h makes the blocks. No file holds them, so they have no ggml type.
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

// y = scale * (q - zero). The codes are one string of bits: q of element e is bits [e * bits, (e + 1) * bits)
// of qs, low bits first. zero is 0 to 2^bits.
#pragma pack(push, 1)
template <int bits, int elements>
struct BlockInt {
  static constexpr int kElements = elements, kBits = bits;
  static const std::string_view kName;
  float scale;
  uint8_t zero;
  uint8_t qs[elements * bits / 8];
};
#pragma pack(pop)
using BlockInt2G32 = BlockInt<2, 32>;
using BlockInt2G128 = BlockInt<2, 128>;
using BlockInt3G32 = BlockInt<3, 32>;
using BlockInt3G128 = BlockInt<3, 128>;
using BlockInt4G32 = BlockInt<4, 32>;
using BlockInt4G128 = BlockInt<4, 128>;
using BlockInt8G32 = BlockInt<8, 32>;
using BlockInt8G128 = BlockInt<8, 128>;
template <>
inline constexpr std::string_view BlockInt2G32::kName = "int2_g32";
template <>
inline constexpr std::string_view BlockInt2G128::kName = "int2_g128";
template <>
inline constexpr std::string_view BlockInt3G32::kName = "int3_g32";
template <>
inline constexpr std::string_view BlockInt3G128::kName = "int3_g128";
template <>
inline constexpr std::string_view BlockInt4G32::kName = "int4_g32";
template <>
inline constexpr std::string_view BlockInt4G128::kName = "int4_g128";
template <>
inline constexpr std::string_view BlockInt8G32::kName = "int8_g32";
template <>
inline constexpr std::string_view BlockInt8G128::kName = "int8_g128";
static_assert(sizeof(BlockInt4G32) == 21 && sizeof(BlockInt4G128) == 69 && sizeof(BlockInt3G128) == 53);

// The code of bits bits that begins at bit `at` of a string; nothing past the string's end is read.
template <int bits>
inline int code_at(const uint8_t* string, int at) {
  int code = string[at / 8] >> (at % 8);
  if constexpr (8 % bits != 0)
    if (at % 8 + bits > 8) code |= string[at / 8 + 1] << (8 - at % 8);
  return code & ((1 << bits) - 1);
}

void decode_e4m3(const std::byte* codes, float* values, int64_t count);  // plain, no scale
void decode_e4m3_g128(const std::byte* blocks, float* values, int64_t count);
template <typename Block>  // a BlockInt
void decode_ints(const std::byte* blocks, float* values, int64_t count);

}  // namespace cairn::codecs
