#include "codecs/nonlinear.h"

#include <algorithm>
#include <cmath>

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

constexpr int kSub = 32;

void decode(const BlockIQ4_NL& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * float(kNonlinearLevels[b.qs[j] & 15]);
    y[j + 16] = d * float(kNonlinearLevels[b.qs[j] >> 4]);
  }
}

void decode(const BlockIQ4_XS& block, float* y) {
  const float d = f16_to_float(block.d);
  for (int b = 0; b < 8; ++b, y += kSub) {
    const int low = (block.scales_l[b / 2] >> (4 * (b % 2))) & 15, high = (block.scales_h >> (2 * b)) & 3;
    const float scale = d * float((low | high << 4) - 32);
    for (int j = 0; j < 16; ++j) {
      y[j] = scale * float(kNonlinearLevels[block.qs[16 * b + j] & 15]);
      y[j + 16] = scale * float(kNonlinearLevels[block.qs[16 * b + j] >> 4]);
    }
  }
}

// The code whose level is nearest to v, the lower one of two equally near.
int nearest_level(float v) {
  int code = 0;
  while (code < 15 && v - float(kNonlinearLevels[code]) > float(kNonlinearLevels[code + 1]) - v) ++code;
  return code;
}

// The scale of 32 elements with the least weighted squared error among steps that put the extreme element on,
// or a little beside, either end of the table.
float fit(const float* x, const float* importance) {
  const float extreme = signed_max(x, kSub);
  if (inverse(extreme) == 0) return 0;
  double best_scale = 0, best_gain = 0;
  const auto attempt = [&](float inverse_scale) {
    double xl = 0, ll = 0;
    for (int i = 0; i < kSub; ++i) {
      const double l = kNonlinearLevels[nearest_level(inverse_scale * x[i])];
      const double wl = double(x[i]) * x[i] * (importance ? importance[i] : 1.0f) * l;
      xl += wl * x[i], ll += wl * l;
    }
    if (ll > 0 && xl * xl > best_gain * ll) best_scale = xl / ll, best_gain = best_scale * xl;
  };
  for (int t = -7; t <= 7; ++t) attempt((float(kNonlinearLevels[0]) + float(t)) / extreme);
  for (int t = -7; t <= 7; ++t) attempt((float(kNonlinearLevels[15]) + float(t)) / extreme);
  return float(best_scale);
}

void quantize(const float* x, float scale, uint8_t* qs) {
  const float per = inverse(scale);
  for (int j = 0; j < 16; ++j)
    qs[j] = uint8_t(nearest_level(x[j] * per) | nearest_level(x[j + 16] * per) << 4);
}

void encode(const float* x, const float* importance, BlockIQ4_NL& b) {
  b.d = f16_scale(fit(x, importance), BlockIQ4_NL::kName);
  quantize(x, f16_to_float(b.d), b.qs);
}

void encode(const float* x, const float* importance, BlockIQ4_XS& block) {
  float fits[8];
  for (int b = 0; b < 8; ++b) fits[b] = fit(x + kSub * b, importance ? importance + kSub * b : nullptr);
  const float extreme = signed_max(fits, 8);
  block.d = f16_scale(extreme / -32.0f, BlockIQ4_XS::kName);
  const float per_scale = -32.0f * inverse(extreme), d = f16_to_float(block.d);
  for (int b = 0; b < 8; ++b) {
    const int scale = nearest(per_scale * fits[b], -32, 31), stored = scale + 32;
    block.scales_l[b / 2] = uint8_t(block.scales_l[b / 2] | (stored & 15) << (4 * (b % 2)));
    block.scales_h = uint16_t(block.scales_h | (stored >> 4) << (2 * b));
    quantize(x + kSub * b, d * float(scale), block.qs + 16 * b);
  }
}

}  // namespace

void decode_iq4_nl(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockIQ4_NL, static_cast<void (*)(const BlockIQ4_NL&, float*)>(decode)>(blocks, values,
                                                                                        count);
}
void decode_iq4_xs(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockIQ4_XS, static_cast<void (*)(const BlockIQ4_XS&, float*)>(decode)>(blocks, values,
                                                                                        count);
}
void encode_iq4_nl(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockIQ4_NL, static_cast<void (*)(const float*, const float*, BlockIQ4_NL&)>(encode)>(
      values, blocks, count, importance);
}
void encode_iq4_xs(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockIQ4_XS, static_cast<void (*)(const float*, const float*, BlockIQ4_XS&)>(encode)>(
      values, blocks, count, importance);
}

}  // namespace cairn::codecs
