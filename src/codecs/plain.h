// Numbers stored one by one: no block, no scale. Integers are listed so that files with them open; their
// decode rounds to the nearest float and there is no encode.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cairn::codecs {

void decode_f32(const std::byte* blocks, float* values, int64_t count);
void decode_f16(const std::byte* blocks, float* values, int64_t count);
void decode_bf16(const std::byte* blocks, float* values, int64_t count);
void decode_f64(const std::byte* blocks, float* values, int64_t count);
void decode_i8(const std::byte* blocks, float* values, int64_t count);
void decode_i16(const std::byte* blocks, float* values, int64_t count);
void decode_i32(const std::byte* blocks, float* values, int64_t count);
void decode_i64(const std::byte* blocks, float* values, int64_t count);

// Rounding is to nearest, ties to even; NaN stays NaN, what is too large for f16 becomes infinity.
void encode_f32(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_f16(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_bf16(const float* values, std::byte* blocks, int64_t count, const float* importance);
void encode_f64(const float* values, std::byte* blocks, int64_t count, const float* importance);

}  // namespace cairn::codecs
