// 4-bit codes into a fixed table of 16 unevenly spaced levels, close to the quantiles of a normal
// distribution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::codecs {

inline constexpr int8_t kNonlinearLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                1,    13,   25,  38,  53,  69,  89,  113};

struct BlockIQ4_NL {  // y = d * level(q); low nibbles are elements 0..15, high nibbles 16..31
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "iq4_nl";
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

struct BlockIQ4_XS {  // eight sub-blocks b of 32, nibbles ordered as in iq4_nl: y = d * (scale(b) - 32) *
                      // level(q)
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "iq4_xs";
  uint16_t d;
  uint16_t scales_h;    // bits 2b, 2b+1: the upper two bits of scale b
  uint8_t scales_l[4];  // nibbles: the lower four, even b low
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

void decode_iq4_nl(const std::byte* blocks, float* values, int64_t count);
void decode_iq4_xs(const std::byte* blocks, float* values, int64_t count);

// The scale is searched for the least weighted squared error, weights x^2 times importance.
// Throws Error(invalid_argument) for NaN, infinity and scales past f16.
void encode_iq4_nl(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_iq4_xs(const float* values, std::byte* blocks, int64_t count, const float* importance);

}  // namespace cairn::codecs
