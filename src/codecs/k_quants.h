// k-quants: super-blocks of 256 weights whose sub-blocks of 16 or 32 have small integer scales (and minima)
// of their own, in units of one or two f16. Byte layouts are ggml's; where d stands in the block differs by
// type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::codecs {

// Elements are named e = 128 n + 32 c + l; i = 8 n + 2 c + (l >= 16) is the sub-block of 16.
struct BlockQ2_K {  // y = d * (scales[i] & 15) * q - dmin * (scales[i] >> 4),  q = (qs[32 n + l] >> 2 c) & 3
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "q2_k";
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

struct BlockQ3_K {  // y = d * (scale(i) - 32) * (q - (bit 4 n + c of hmask[l] ? 0 : 4)), q as in q2_k
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "q3_k";
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];  // 16 of 6 bits, see unpack_q3_k_scales
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// Elements e = 32 s + l: sub-blocks s of 32. Nibbles of qs[32 (s / 2) + l], low for even s.
struct BlockQ4_K {  // y = d * scale(s) * q - dmin * min(s)
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "q4_k";
  uint16_t d, dmin;
  uint8_t scales[12];  // 8 scales and 8 minima of 6 bits, see unpack_k_scales
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

struct BlockQ5_K {  // as q4_k; bit s of qh[l] is bit 4 of q
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "q5_k";
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

struct BlockQ6_K {  // y = d * scales[i] * (q - 32); q = nibble of ql[64 n + 32 (c & 1) + l] | ((qh[32 n + l]
                    // >> 2 c) & 3) << 4
  static constexpr int kElements = 256;
  static constexpr std::string_view kName = "q6_k";
  uint8_t ql[128];  // low nibbles hold c = 0, 1; high nibbles c = 2, 3
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// The eight 6-bit scales and minima of q4_k and q5_k.
inline void unpack_k_scales(const uint8_t (&packed)[12], uint8_t (&scale)[8], uint8_t (&min)[8]) {
  for (int s = 0; s < 4; ++s) {
    scale[s] = packed[s] & 63;
    min[s] = packed[s + 4] & 63;
    scale[s + 4] = uint8_t((packed[s + 8] & 15) | (packed[s] >> 6) << 4);
    min[s + 4] = uint8_t((packed[s + 8] >> 4) | (packed[s + 4] >> 6) << 4);
  }
}

// The sixteen scales of q3_k, the offset of 32 removed: -32..31.
inline void unpack_q3_k_scales(const uint8_t (&packed)[12], int8_t (&scale)[16]) {
  for (int i = 0; i < 16; ++i) {
    const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
    const int high = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
    scale[i] = int8_t((low | high << 4) - 32);
  }
}

void decode_q2_k(const std::byte* blocks, float* values, int64_t count);
void decode_q3_k(const std::byte* blocks, float* values, int64_t count);
void decode_q4_k(const std::byte* blocks, float* values, int64_t count);
void decode_q5_k(const std::byte* blocks, float* values, int64_t count);
void decode_q6_k(const std::byte* blocks, float* values, int64_t count);

// Each sub-block's scale (and minimum) is searched for the least weighted error, the scales are quantized,
// and the elements are quantized again with what the file will hold. importance multiplies the weights of the
// search. Throws Error(invalid_argument) for NaN, infinity and scales past f16.
void encode_q2_k(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q3_k(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q4_k(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q5_k(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q6_k(const float* values, std::byte* blocks, int64_t count, const float* importance);

}  // namespace cairn::codecs
