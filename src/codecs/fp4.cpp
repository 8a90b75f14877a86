#include "codecs/fp4.h"

#include <algorithm>
#include <cmath>

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

void decode(const BlockMXFP4& b, float* y) {
  const float scale = mxfp4_scale(b.e);
  for (int j = 0; j < 16; ++j) {
    y[j] = scale * float(kFp4Levels[b.qs[j] & 15]);
    y[j + 16] = scale * float(kFp4Levels[b.qs[j] >> 4]);
  }
}

void decode(const BlockNVFP4& b, float* y) {
  for (int s = 0; s < 4; ++s, y += 16) {
    const float scale = half_e4m3(b.d[s]);
    for (int t = 0; t < 8; ++t) {
      y[t] = scale * float(kFp4Levels[b.qs[8 * s + t] & 15]);
      y[t + 8] = scale * float(kFp4Levels[b.qs[8 * s + t] >> 4]);
    }
  }
}

// The code whose value is nearest; the first of equals, so zero is never -0 and ties go to the smaller
// magnitude.
int nearest_code(float x, float scale) {
  int best = 0;
  float least = std::abs(x);
  for (int code = 1; code < 16; ++code) {
    const float error = std::abs(scale * float(kFp4Levels[code]) - x);
    if (error < least) least = error, best = code;
  }
  return best;
}

void encode(const float* x, const float*, BlockMXFP4& b) {
  const float most = std::abs(signed_max(x, 32));
  // The largest e2m1 value is 6 = 1.5 * 2^2: the largest element lands in its binade. 125 = 127 - 2.
  b.e = most > 0 ? uint8_t(std::clamp(std::ilogb(most) + 125, 0, 254)) : uint8_t(0);
  const float scale = mxfp4_scale(b.e);
  for (int j = 0; j < 16; ++j)
    b.qs[j] = uint8_t(nearest_code(x[j], scale) | nearest_code(x[j + 16], scale) << 4);
}

// The unsigned e4m3 nearest to twice half_value. Codes rise with their values.
uint8_t nearest_e4m3(float half_value) {
  int code = 0;
  while (code < 0x7e && half_value - half_e4m3(uint8_t(code)) >= half_e4m3(uint8_t(code + 1)) - half_value)
    ++code;
  return uint8_t(code);
}

void encode(const float* x, const float*, BlockNVFP4& b) {
  for (int s = 0; s < 4; ++s, x += 16) {
    const float most = std::abs(signed_max(x, 16));
    if (most > 2688.0f)
      fail(ErrorKind::invalid_argument,
           "an element of magnitude {} is past the limit 2688 of nvfp4 without a tensor scale; "
           "keep this tensor as f32, f16 or bf16",
           most);
    b.d[s] = nearest_e4m3(most / 12.0f);
    const float scale = half_e4m3(b.d[s]);
    for (int t = 0; t < 8; ++t)
      b.qs[8 * s + t] = uint8_t(nearest_code(x[t], scale) | nearest_code(x[t + 8], scale) << 4);
  }
}

}  // namespace

void decode_mxfp4(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockMXFP4, static_cast<void (*)(const BlockMXFP4&, float*)>(decode)>(blocks, values, count);
}
void decode_nvfp4(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockNVFP4, static_cast<void (*)(const BlockNVFP4&, float*)>(decode)>(blocks, values, count);
}
void encode_mxfp4(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockMXFP4, static_cast<void (*)(const float*, const float*, BlockMXFP4&)>(encode)>(
      values, blocks, count, importance);
}
void encode_nvfp4(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockNVFP4, static_cast<void (*)(const float*, const float*, BlockNVFP4&)>(encode)>(
      values, blocks, count, importance);
}

}  // namespace cairn::codecs
