// ggml's first block formats: 32 weights share one f16 scale (and, for the _1 forms, an f16 minimum).
// Low nibbles are elements 0..15, high nibbles 16..31.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::codecs {

struct BlockQ4_0 {  // y = d * (q - 8)
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "q4_0";
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct BlockQ4_1 {  // y = d * q + m
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "q4_1";
  uint16_t d, m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct BlockQ5_0 {  // y = d * (q - 16); bit e of qh (little-endian) is bit 4 of element e
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "q5_0";
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct BlockQ5_1 {  // y = d * q + m
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "q5_1";
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

struct BlockQ8_0 {  // y = d * q
  static constexpr int kElements = 32;
  static constexpr std::string_view kName = "q8_0";
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

void decode_q4_0(const std::byte* blocks, float* values, int64_t count);
void decode_q4_1(const std::byte* blocks, float* values, int64_t count);
void decode_q5_0(const std::byte* blocks, float* values, int64_t count);
void decode_q5_1(const std::byte* blocks, float* values, int64_t count);
void decode_q8_0(const std::byte* blocks, float* values, int64_t count);

// Round-to-nearest with the scale of the extreme element; importance is not used by these formats.
// Throws Error(invalid_argument) for NaN, infinity and scales past f16.
void encode_q4_0(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q4_1(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q5_0(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q5_1(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_q8_0(const float* values, std::byte* blocks, int64_t count, const float* importance);

}  // namespace cairn::codecs
