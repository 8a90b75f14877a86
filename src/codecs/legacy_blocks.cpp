#include "codecs/legacy_blocks.h"

#include <algorithm>
#include <cmath>

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

uint32_t high_bits(const uint8_t (&qh)[4]) {
  return uint32_t{qh[0]} | uint32_t{qh[1]} << 8 | uint32_t{qh[2]} << 16 | uint32_t{qh[3]} << 24;
}

void decode(const BlockQ4_0& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float((b.qs[j] & 15) - 8);
    y[j + 16] = d * float((b.qs[j] >> 4) - 8);
  }
}

void decode(const BlockQ4_1& b, float* y) {
  const float d = f16_to_float(b.d), m = f16_to_float(b.m);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(b.qs[j] & 15) + m;
    y[j + 16] = d * float(b.qs[j] >> 4) + m;
  }
}

void decode(const BlockQ5_0& b, float* y) {
  const float d = f16_to_float(b.d);
  const uint32_t qh = high_bits(b.qh);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(int((b.qs[j] & 15u) | ((qh >> j) & 1) << 4) - 16);
    y[j + 16] = d * float(int((b.qs[j] >> 4u) | ((qh >> (j + 16)) & 1) << 4) - 16);
  }
}

void decode(const BlockQ5_1& b, float* y) {
  const float d = f16_to_float(b.d), m = f16_to_float(b.m);
  const uint32_t qh = high_bits(b.qh);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float((b.qs[j] & 15u) | ((qh >> j) & 1) << 4) + m;
    y[j + 16] = d * float((b.qs[j] >> 4u) | ((qh >> (j + 16)) & 1) << 4) + m;
  }
}

void decode(const BlockQ8_0& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int j = 0; j < 32; ++j) y[j] = d * float(b.qs[j]);
}

void put_nibbles(const int (&q)[32], uint8_t (&qs)[16]) {
  for (int j = 0; j < 16; ++j) qs[j] = uint8_t((q[j] & 15) | (q[j + 16] & 15) << 4);
}

void put_high_bits(const int (&q)[32], uint8_t (&qh)[4]) {
  for (int e = 0; e < 32; ++e) qh[e / 8] = uint8_t(qh[e / 8] | ((q[e] >> 4) & 1) << (e % 8));
}

// Signed formats: the extreme element sits at the low end of the range, code 0, so that all codes are used.
template <typename Block>
void quantize_signed(const float* x, Block& b, int half, int (&q)[32]) {
  const float d = signed_max(x, 32) / float(-half), id = inverse(d);
  b.d = f16_scale(d, Block::kName);
  for (int e = 0; e < 32; ++e) q[e] = std::min(2 * half - 1, int(x[e] * id + (float(half) + 0.5f)));
}

template <typename Block>
void quantize_affine(const float* x, Block& b, int top, int (&q)[32]) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float m = *low, d = (*high - m) / float(top), id = inverse(d);
  b.d = f16_scale(d, Block::kName);
  b.m = f16_scale(m, Block::kName);
  for (int e = 0; e < 32; ++e) q[e] = std::min(top, int((x[e] - m) * id + 0.5f));
}

void encode(const float* x, const float*, BlockQ4_0& b) {
  int q[32];
  quantize_signed(x, b, 8, q);
  put_nibbles(q, b.qs);
}

void encode(const float* x, const float*, BlockQ4_1& b) {
  int q[32];
  quantize_affine(x, b, 15, q);
  put_nibbles(q, b.qs);
}

void encode(const float* x, const float*, BlockQ5_0& b) {
  int q[32];
  quantize_signed(x, b, 16, q);
  put_nibbles(q, b.qs);
  put_high_bits(q, b.qh);
}

void encode(const float* x, const float*, BlockQ5_1& b) {
  int q[32];
  quantize_affine(x, b, 31, q);
  put_nibbles(q, b.qs);
  put_high_bits(q, b.qh);
}

void encode(const float* x, const float*, BlockQ8_0& b) {
  const float d = std::abs(signed_max(x, 32)) / 127.0f, id = inverse(d);
  b.d = f16_scale(d, BlockQ8_0::kName);
  for (int e = 0; e < 32; ++e) b.qs[e] = int8_t(nearest(x[e] * id, -127, 127));
}

template <typename Block>
constexpr auto kDecode = decode_blocks<Block, static_cast<void (*)(const Block&, float*)>(decode)>;
template <typename Block>
constexpr auto kEncode =
    encode_blocks<Block, static_cast<void (*)(const float*, const float*, Block&)>(encode)>;

}  // namespace

void decode_q4_0(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ4_0>(blocks, values, count);
}
void decode_q4_1(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ4_1>(blocks, values, count);
}
void decode_q5_0(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ5_0>(blocks, values, count);
}
void decode_q5_1(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ5_1>(blocks, values, count);
}
void decode_q8_0(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ8_0>(blocks, values, count);
}

void encode_q4_0(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ4_0>(values, blocks, count, importance);
}
void encode_q4_1(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ4_1>(values, blocks, count, importance);
}
void encode_q5_0(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ5_0>(values, blocks, count, importance);
}
void encode_q5_1(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ5_1>(values, blocks, count, importance);
}
void encode_q8_0(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ8_0>(values, blocks, count, importance);
}

}  // namespace cairn::codecs
