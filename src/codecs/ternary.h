// Weights of -d, 0 and d, as ternary-trained models have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::codecs {

// Base 3, five digits per byte: a byte b stands for the fraction b / 256 whose first digit is (3 b) >> 8, so
// digit k is the first digit of (b * 3^k) mod 256. Digits lie digit-major: element 32 k + j is digit k of
// qs[j] (j < 32), element 160 + 16 k + j digit k of qs[32 + j] (j < 16), element 240 + 4 k + j digit k (of
// four) of qh[j].
struct BlockTQ1_0 {  // y = d * (digit - 1)
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "tq1_0";
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

struct BlockTQ2_0 {  // y[128 n + 32 c + l] = d * (((qs[32 n + l] >> 2 c) & 3) - 1)
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "tq2_0";
  uint8_t qs[64];
  uint16_t d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

void decode_tq1_0(const std::byte* blocks, float* values, int64_t count);
void decode_tq2_0(const std::byte* blocks, float* values, int64_t count);

// d is the largest magnitude, the rest rounds to -1, 0, 1 of it; importance is not used.
// Throws Error(invalid_argument) for NaN, infinity and scales past f16.
void encode_tq1_0(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_tq2_0(const float* values, std::byte* blocks, int64_t count, const float* importance);

}  // namespace cairn::codecs
