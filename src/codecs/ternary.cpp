#include "codecs/ternary.h"

#include <cmath>

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

constexpr int kPowersOf3[5] = {1, 3, 9, 27, 81};

int digit(uint8_t byte, int k) { return (uint8_t(byte * kPowersOf3[k]) * 3) >> 8; }

void decode(const BlockTQ1_0& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int k = 0; k < 5; ++k)
    for (int j = 0; j < 32; ++j) *y++ = d * float(digit(b.qs[j], k) - 1);
  for (int k = 0; k < 5; ++k)
    for (int j = 32; j < 48; ++j) *y++ = d * float(digit(b.qs[j], k) - 1);
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 4; ++j) *y++ = d * float(digit(b.qh[j], k) - 1);
}

void decode(const BlockTQ2_0& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 4; ++c)
      for (int l = 0; l < 32; ++l) *y++ = d * float(((b.qs[32 * n + l] >> (2 * c)) & 3) - 1);
}

// Digit k of each of `bytes` bytes, digit-major in `digits`; a fifth digit that is absent counts as 0.
void pack_digits(const uint8_t* digits, int bytes, int digits_per_byte, uint8_t* out) {
  for (int j = 0; j < bytes; ++j) {
    int value = 0;
    for (int k = 0; k < 5; ++k) value = 3 * value + (k < digits_per_byte ? digits[k * bytes + j] : 0);
    out[j] = uint8_t((value * 256 + 242) / 243);  // the least fraction of 256 that is not below value / 243
  }
}

template <typename Block>
void quantize(const float* x, Block& b, uint8_t (&digits)[256]) {
  const float d = std::abs(signed_max(x, 256)), per = inverse(d);
  b.d = f16_scale(d, Block::kName);
  for (int e = 0; e < 256; ++e) digits[e] = uint8_t(nearest(x[e] * per, -1, 1) + 1);
}

void encode(const float* x, const float*, BlockTQ1_0& b) {
  uint8_t digits[256];
  quantize(x, b, digits);
  pack_digits(digits, 32, 5, b.qs);
  pack_digits(digits + 160, 16, 5, b.qs + 32);
  pack_digits(digits + 240, 4, 4, b.qh);
}

void encode(const float* x, const float*, BlockTQ2_0& b) {
  uint8_t digits[256];
  quantize(x, b, digits);
  for (int e = 0; e < 256; ++e) {
    uint8_t& byte = b.qs[32 * (e / 128) + e % 32];
    byte = uint8_t(byte | digits[e] << (2 * (e / 32 % 4)));
  }
}

}  // namespace

void decode_tq1_0(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockTQ1_0, static_cast<void (*)(const BlockTQ1_0&, float*)>(decode)>(blocks, values, count);
}
void decode_tq2_0(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockTQ2_0, static_cast<void (*)(const BlockTQ2_0&, float*)>(decode)>(blocks, values, count);
}
void encode_tq1_0(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockTQ1_0, static_cast<void (*)(const float*, const float*, BlockTQ1_0&)>(encode)>(
      values, blocks, count, importance);
}
void encode_tq2_0(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockTQ2_0, static_cast<void (*)(const float*, const float*, BlockTQ2_0&)>(encode)>(
      values, blocks, count, importance);
}

}  // namespace cairn::codecs
