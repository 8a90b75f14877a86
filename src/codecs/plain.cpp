#include "codecs/plain.h"

#include <bit>
#include <cstring>

#include "base/float16.h"

namespace cairn::codecs {
namespace {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian and are read where they lie");

template <typename Stored, typename F>
void decode_each(const std::byte* blocks, float* values, int64_t count, F&& to_float) {
  for (int64_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, blocks + i * int64_t(sizeof stored), sizeof stored);
    values[i] = to_float(stored);
  }
}

template <typename Stored, typename F>
void encode_each(const float* values, std::byte* blocks, int64_t count, F&& from_float) {
  for (int64_t i = 0; i < count; ++i) {
    const Stored stored = from_float(values[i]);
    std::memcpy(blocks + i * int64_t(sizeof stored), &stored, sizeof stored);
  }
}

constexpr auto kToFloat = [](auto v) { return float(v); };

}  // namespace

void decode_f32(const std::byte* blocks, float* values, int64_t count) {
  std::memcpy(values, blocks, size_t(count) * sizeof(float));
}
void decode_f16(const std::byte* blocks, float* values, int64_t count) {
  decode_each<uint16_t>(blocks, values, count, f16_to_float);
}
void decode_bf16(const std::byte* blocks, float* values, int64_t count) {
  decode_each<uint16_t>(blocks, values, count, bf16_to_float);
}
void decode_f64(const std::byte* blocks, float* values, int64_t count) {
  decode_each<double>(blocks, values, count, kToFloat);
}
void decode_i8(const std::byte* blocks, float* values, int64_t count) {
  decode_each<int8_t>(blocks, values, count, kToFloat);
}
void decode_i16(const std::byte* blocks, float* values, int64_t count) {
  decode_each<int16_t>(blocks, values, count, kToFloat);
}
void decode_i32(const std::byte* blocks, float* values, int64_t count) {
  decode_each<int32_t>(blocks, values, count, kToFloat);
}
void decode_i64(const std::byte* blocks, float* values, int64_t count) {
  decode_each<int64_t>(blocks, values, count, kToFloat);
}

void encode_f32(const float* values, std::byte* blocks, int64_t count, const float*) {
  std::memcpy(blocks, values, size_t(count) * sizeof(float));
}
void encode_f16(const float* values, std::byte* blocks, int64_t count, const float*) {
  encode_each<uint16_t>(values, blocks, count, float_to_f16);
}
void encode_bf16(const float* values, std::byte* blocks, int64_t count, const float*) {
  encode_each<uint16_t>(values, blocks, count, float_to_bf16);
}
void encode_f64(const float* values, std::byte* blocks, int64_t count, const float*) {
  encode_each<double>(values, blocks, count, [](float v) { return double(v); });
}

}  // namespace cairn::codecs
