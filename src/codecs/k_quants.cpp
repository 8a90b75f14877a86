#include "codecs/k_quants.h"

#include <algorithm>
#include <cmath>

#include "codecs/block_codec.h"
#include "codecs/scale_search.h"

namespace cairn::codecs {
namespace {

constexpr int kSuper = 256;

void decode(const BlockQ2_K& b, float* y) {
  const float d = f16_to_float(b.d), dmin = f16_to_float(b.dmin);
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 4; ++c)
      for (int l = 0; l < 32; ++l) {
        const uint8_t s = b.scales[8 * n + 2 * c + l / 16];
        const int q = (b.qs[32 * n + l] >> (2 * c)) & 3;
        *y++ = d * float(s & 15) * float(q) - dmin * float(s >> 4);
      }
}

void decode(const BlockQ3_K& b, float* y) {
  const float d = f16_to_float(b.d);
  int8_t scale[16];
  unpack_q3_k_scales(b.scales, scale);
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 4; ++c)
      for (int l = 0; l < 32; ++l) {
        const bool high = (b.hmask[l] >> (4 * n + c)) & 1;
        const int q = ((b.qs[32 * n + l] >> (2 * c)) & 3) - (high ? 0 : 4);
        *y++ = d * float(scale[8 * n + 2 * c + l / 16]) * float(q);
      }
}

void decode(const BlockQ4_K& b, float* y) {
  const float d = f16_to_float(b.d), dmin = f16_to_float(b.dmin);
  uint8_t scale[8], min[8];
  unpack_k_scales(b.scales, scale, min);
  for (int s = 0; s < 8; ++s) {
    const float ds = d * float(scale[s]), ms = dmin * float(min[s]);
    for (int l = 0; l < 32; ++l) *y++ = ds * float((b.qs[32 * (s / 2) + l] >> (4 * (s % 2))) & 15) - ms;
  }
}

void decode(const BlockQ5_K& b, float* y) {
  const float d = f16_to_float(b.d), dmin = f16_to_float(b.dmin);
  uint8_t scale[8], min[8];
  unpack_k_scales(b.scales, scale, min);
  for (int s = 0; s < 8; ++s) {
    const float ds = d * float(scale[s]), ms = dmin * float(min[s]);
    for (int l = 0; l < 32; ++l) {
      const int low = (b.qs[32 * (s / 2) + l] >> (4 * (s % 2))) & 15, high = (b.qh[l] >> s) & 1;
      *y++ = ds * float(low | high << 4) - ms;
    }
  }
}

void decode(const BlockQ6_K& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 4; ++c)
      for (int l = 0; l < 32; ++l) {
        const int low = (b.ql[64 * n + 32 * (c % 2) + l] >> (4 * (c / 2))) & 15;
        const int high = (b.qh[32 * n + l] >> (2 * c)) & 3;
        *y++ = d * float(b.scales[8 * n + 2 * c + l / 16]) * float((low | high << 4) - 32);
      }
}

void pack_k_scales(const uint8_t (&scale)[8], const uint8_t (&min)[8], uint8_t (&packed)[12]) {
  for (int s = 0; s < 4; ++s) {
    packed[s] = uint8_t(scale[s] | (scale[s + 4] >> 4) << 6);
    packed[s + 4] = uint8_t(min[s] | (min[s + 4] >> 4) << 6);
    packed[s + 8] = uint8_t((scale[s + 4] & 15) | (min[s + 4] & 15) << 4);
  }
}

// Scales and minima of all sub-blocks as integers 0..top of one f16 unit each.
template <int sub_blocks>
struct AffineScales {
  uint16_t d, dmin;
  uint8_t scale[sub_blocks], min[sub_blocks];
};

template <int sub_blocks>
AffineScales<sub_blocks> quantize_scales(const AffineFit (&fits)[sub_blocks], int top,
                                         std::string_view name) {
  float most_scale = 0, most_min = 0;
  for (const auto& fit : fits)
    most_scale = std::max(most_scale, fit.scale), most_min = std::max(most_min, fit.min);
  AffineScales<sub_blocks> out{};
  out.d = f16_scale(most_scale / float(top), name);
  out.dmin = f16_scale(most_min / float(top), name);
  const float per_scale = float(top) * inverse(most_scale), per_min = float(top) * inverse(most_min);
  for (int s = 0; s < sub_blocks; ++s) {
    out.scale[s] = uint8_t(nearest(per_scale * fits[s].scale, 0, top));
    out.min[s] = uint8_t(nearest(per_min * fits[s].min, 0, top));
  }
  return out;
}

// Codes of one sub-block under the scale and minimum that the file holds.
void quantize_affine(const float* x, int count, float scale, float min, int top, uint8_t* codes) {
  const float per = inverse(scale);
  for (int i = 0; i < count; ++i) codes[i] = uint8_t(nearest((x[i] + min) * per, 0, top));
}

void encode(const float* x, const float* importance, BlockQ2_K& b) {
  AffineFit fits[16];
  for (int i = 0; i < 16; ++i) {
    float weights[16];
    for (int l = 0; l < 16; ++l)
      weights[l] = std::abs(x[16 * i + l]) * (importance ? importance[16 * i + l] : 1.0f);
    fits[i] =
        fit_affine(x + 16 * i, weights, 16, {.top = 3, .first = -0.5f, .steps = 15, .absolute_error = true});
  }
  const auto scales = quantize_scales(fits, 15, BlockQ2_K::kName);
  b.d = scales.d;
  b.dmin = scales.dmin;
  uint8_t codes[kSuper];
  for (int i = 0; i < 16; ++i) {
    b.scales[i] = uint8_t(scales.scale[i] | scales.min[i] << 4);
    quantize_affine(x + 16 * i, 16, f16_to_float(b.d) * float(scales.scale[i]),
                    f16_to_float(b.dmin) * float(scales.min[i]), 3, codes + 16 * i);
  }
  for (int e = 0; e < kSuper; ++e) {
    const int n = e / 128, c = e / 32 % 4, l = e % 32;
    b.qs[32 * n + l] = uint8_t(b.qs[32 * n + l] | codes[e] << (2 * c));
  }
}

void encode(const float* x, const float* importance, BlockQ3_K& b) {
  float fits[16];
  for (int i = 0; i < 16; ++i) {
    float weights[16];
    for (int l = 0; l < 16; ++l) {
      const float v = x[16 * i + l];
      weights[l] = v * v * (importance ? importance[16 * i + l] : 1.0f);
    }
    fits[i] = fit_symmetric_by_descent(x + 16 * i, weights, 16, 4);
  }
  const float extreme = signed_max(fits, 16);
  b.d = f16_scale(extreme / -32.0f, BlockQ3_K::kName);
  const float per_scale = -32.0f * inverse(extreme), d = f16_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    const int scale = nearest(per_scale * fits[i], -32, 31), stored = scale + 32;
    b.scales[i % 8] = uint8_t(b.scales[i % 8] | (stored & 15) << (i < 8 ? 0 : 4));
    b.scales[8 + i % 4] = uint8_t(b.scales[8 + i % 4] | (stored >> 4) << (2 * (i / 4)));
    const float per = inverse(d * float(scale));
    for (int e = 16 * i; e < 16 * i + 16; ++e) {
      const int code = nearest(x[e] * per, -4, 3) + 4, n = e / 128, c = e / 32 % 4, l = e % 32;
      b.qs[32 * n + l] = uint8_t(b.qs[32 * n + l] | (code & 3) << (2 * c));
      b.hmask[l] = uint8_t(b.hmask[l] | (code >> 2) << (4 * n + c));
    }
  }
}

// The part that q4_k and q5_k share: scales into the block, codes out.
template <typename Block>
void encode_sub_blocks_of_32(const float* x, const float* importance, const AffineSearch& search, Block& b,
                             uint8_t (&codes)[kSuper]) {
  AffineFit fits[8];
  for (int s = 0; s < 8; ++s) {
    const float* part = x + 32 * s;
    float squares = 0;
    for (int l = 0; l < 32; ++l) squares += part[l] * part[l];
    const float rms = std::sqrt(squares / 32);
    float weights[32];
    for (int l = 0; l < 32; ++l)
      weights[l] = (rms + std::abs(part[l])) * (importance ? importance[32 * s + l] : 1.0f);
    fits[s] = fit_affine(part, weights, 32, search);
  }
  const auto scales = quantize_scales(fits, 63, Block::kName);
  b.d = scales.d;
  b.dmin = scales.dmin;
  pack_k_scales(scales.scale, scales.min, b.scales);
  for (int s = 0; s < 8; ++s)
    quantize_affine(x + 32 * s, 32, f16_to_float(b.d) * float(scales.scale[s]),
                    f16_to_float(b.dmin) * float(scales.min[s]), search.top, codes + 32 * s);
  for (int e = 0; e < kSuper; ++e) {
    uint8_t& byte = b.qs[32 * (e / 64) + e % 32];
    byte = uint8_t(byte | (codes[e] & 15) << (4 * (e / 32 % 2)));
  }
}

void encode(const float* x, const float* importance, BlockQ4_K& b) {
  uint8_t codes[kSuper];
  encode_sub_blocks_of_32(x, importance, {.top = 15, .first = -1, .steps = 20, .absolute_error = false}, b,
                          codes);
}

void encode(const float* x, const float* importance, BlockQ5_K& b) {
  uint8_t codes[kSuper];
  encode_sub_blocks_of_32(x, importance, {.top = 31, .first = -0.5f, .steps = 15, .absolute_error = false}, b,
                          codes);
  for (int e = 0; e < kSuper; ++e) b.qh[e % 32] = uint8_t(b.qh[e % 32] | (codes[e] >> 4) << (e / 32));
}

void encode(const float* x, const float* importance, BlockQ6_K& b) {
  float fits[16];
  for (int i = 0; i < 16; ++i) {
    float weights[16];
    for (int l = 0; l < 16; ++l) {
      const float v = x[16 * i + l];
      weights[l] = v * v * (importance ? importance[16 * i + l] : 1.0f);
    }
    fits[i] = fit_symmetric(x + 16 * i, weights, 16, 32);
  }
  const float extreme = signed_max(fits, 16);
  b.d = f16_scale(extreme / -128.0f, BlockQ6_K::kName);
  const float per_scale = -128.0f * inverse(extreme), d = f16_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    b.scales[i] = int8_t(nearest(per_scale * fits[i], -128, 127));
    const float per = inverse(d * float(b.scales[i]));
    for (int e = 16 * i; e < 16 * i + 16; ++e) {
      const int code = nearest(x[e] * per, -32, 31) + 32, n = e / 128, c = e / 32 % 4, l = e % 32;
      uint8_t& low = b.ql[64 * n + 32 * (c % 2) + l];
      low = uint8_t(low | (code & 15) << (4 * (c / 2)));
      b.qh[32 * n + l] = uint8_t(b.qh[32 * n + l] | (code >> 4) << (2 * c));
    }
  }
}

template <typename Block>
constexpr auto kDecode = decode_blocks<Block, static_cast<void (*)(const Block&, float*)>(decode)>;
template <typename Block>
constexpr auto kEncode =
    encode_blocks<Block, static_cast<void (*)(const float*, const float*, Block&)>(encode)>;

}  // namespace

void decode_q2_k(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ2_K>(blocks, values, count);
}
void decode_q3_k(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ3_K>(blocks, values, count);
}
void decode_q4_k(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ4_K>(blocks, values, count);
}
void decode_q5_k(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ5_K>(blocks, values, count);
}
void decode_q6_k(const std::byte* blocks, float* values, int64_t count) {
  kDecode<BlockQ6_K>(blocks, values, count);
}

void encode_q2_k(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ2_K>(values, blocks, count, importance);
}
void encode_q3_k(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ3_K>(values, blocks, count, importance);
}
void encode_q4_k(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ4_K>(values, blocks, count, importance);
}
void encode_q5_k(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ5_K>(values, blocks, count, importance);
}
void encode_q6_k(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  kEncode<BlockQ6_K>(values, blocks, count, importance);
}

}  // namespace cairn::codecs
