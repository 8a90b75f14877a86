// e2m1 floats with a shared scale. kFp4Levels holds twice the e2m1 values, so that they are integers; the
// scale that multiplies them is half of what OCP's and NVIDIA's papers call the scale.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::codecs {

inline constexpr int8_t kFp4Levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct BlockMXFP4 {  // y = 2^(e - 128) * level(q); low nibbles are elements 0..15. e = 255 is a number like
                     // any other
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "mxfp4";
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

struct BlockNVFP4 {  // four sub-blocks s of 16: y = half_e4m3(d[s]) * level(q); low nibbles of qs[8 s..] are
                     // its first 8
  static constexpr int kElements = 64;
  static constexpr std::string_view kName = "nvfp4";
  uint8_t d[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

// 2^(e - 128); subnormal for e < 2.
inline float mxfp4_scale(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : uint32_t(e - 1) << 23);
}

// Half the value of an unsigned e4m3 (bias 7, the top bit is ignored). 0x7f, the NaN of e4m3, means 0.
inline float half_e4m3(uint8_t code) {
  if (code == 0x7f) return 0;
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  if (exponent == 0) return float(mantissa) * 0x1p-10f;
  return std::bit_cast<float>(uint32_t(exponent - 8 + 127) << 23) * (1.0f + float(mantissa) / 8.0f);
}

void decode_mxfp4(const std::byte* blocks, float* values, int64_t count);
void decode_nvfp4(const std::byte* blocks, float* values, int64_t count);

// The scale follows from the largest magnitude, codes are nearest; importance is not used by these formats.
// Throws Error(invalid_argument) for NaN and infinity, and in nvfp4 for magnitudes past 6 * 448 = 2688.
void encode_mxfp4(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_nvfp4(const float* values, std::byte* blocks, int64_t count, const float* importance);

}  // namespace cairn::codecs
