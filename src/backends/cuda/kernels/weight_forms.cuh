// Reads weights out of the blocks of weights.h: 8 rows by FORM_CHUNK columns, in steps of 32 columns.
//
// Lane 4 g + t of a warp holds 8 codes of row g in a step. As pairs of bf16 they are A operands of m16n8k16:
// pairs 0 and 1 those of the step's first product, 2 and 3 those of the second. Codes become bf16 by writing
// them into the mantissa of 128 (0x4300 | code is 128 + code) and subtracting 128 + zero: exact.
//
// Macros: FORM_LAYOUT (0 bf16 rows, 1 f16 rows, 2 blocks), FORM_CHUNK, FORM_BITS, FORM_ZERO, FORM_LEVELS,
// FORM_GROUP, FORM_SCALES (numbers of the enums in weights.h).
#pragma once

#include "device.cuh"

namespace form {

constexpr bool kBlocks = FORM_LAYOUT == 2;
constexpr int kChunk = FORM_CHUNK, kSteps = kChunk / 32;
constexpr bool kHalfSteps = kBlocks && FORM_GROUP == 16;  // a scale for each of a step's two products
constexpr bool kPlane8 = FORM_BITS == 8, kPlane4 = FORM_BITS == 4 || FORM_BITS == 5 || FORM_BITS == 6;
constexpr bool kPlane2 = FORM_BITS == 2 || FORM_BITS == 3 || FORM_BITS == 6;
constexpr bool kPlane1 = FORM_BITS == 3 || FORM_BITS == 5;
constexpr bool kMin = FORM_SCALES == 2 || FORM_SCALES == 4 || FORM_SCALES == 5;
constexpr bool kCodeZero = FORM_SCALES == 8;  // a zero per group

constexpr int kOffset4 = 0;
constexpr int kOffset2 = kPlane4 ? 4 * kChunk : 0;
constexpr int kOffset1 = kOffset2 + (kPlane2 ? 2 * kChunk : 0);
constexpr int kOffsetScales = kPlane8 ? 8 * kChunk : kOffset1 + (kPlane1 ? kChunk : 0);
constexpr int kGroupsPerSection = FORM_GROUP >= 128 ? 1 : 128 / (FORM_GROUP > 0 ? FORM_GROUP : 128);
constexpr int kSectionBytes =  // scales of a row and 128 columns
    FORM_SCALES == 1                                           ? 2 * kGroupsPerSection
    : FORM_SCALES == 2 || FORM_SCALES == 8 || FORM_SCALES == 9 ? 4 * kGroupsPerSection
    : FORM_SCALES == 4                                         ? 2 * kGroupsPerSection
    : FORM_SCALES == 0                                         ? 0
                                                               : kGroupsPerSection;
constexpr int kScaleSections =
    FORM_GROUP > 128 ? 1 : kChunk / 128;  // a group of 256 has one scale for both sections
constexpr int kOffsetRows = kOffsetScales + 8 * kSectionBytes * kScaleSections;
constexpr int kRowBytes = FORM_SCALES == 3 ? 2 : FORM_SCALES == 4 || FORM_SCALES == 5 ? 4 : 0;
constexpr int kBlockBytes = kOffsetRows + 8 * kRowBytes;

constexpr u32 kBf16Of128 = 0x43004300u;

DEVICE u32 fma_bf16x2(u32 a, u32 b, u32 c) {
  u32 y;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
  return y;
}
// a + b, exact for the small integers here
DEVICE u32 add_bf16x2(u32 a, u32 b) { return fma_bf16x2(a, 0x3f803f80u, b); }

// (a & b) | c in one instruction; the compiler makes two of it when b and c are constants.
DEVICE u32 and_or(u32 a, u32 b, u32 c) {
  u32 y;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
  return y;
}

// Signed bytes 0 and 2 as a pair of bf16: 128 + the low 7 bits, less 128 or 256.
DEVICE u32 bf16x2_of_bytes(u32 w) {
  return add_bf16x2(and_or(w, 0x007f007fu, kBf16Of128), and_or(w, 0x00800080u, 0xc300c300u));
}

// e4m3 codes in bytes 0 and 2 as a pair of bf16, exact: their bits are those of a bf16 that is 2^120 too
// small. NaN is not told apart (480).
DEVICE u32 bf16x2_of_e4m3(u32 w) {
  return fma_bf16x2(and_or(w << 4, 0x07f007f0u, (w << 8) & 0x80008000u), 0x7b807b80u, 0x80008000u);
}

#if FORM_LEVELS == 1
constexpr u32 kLevels0 = 0xbfad9881u, kLevels1 = 0xf6eaddcfu, kLevels2 = 0x26190d01u, kLevels3 = 0x71594535u;
#elif FORM_LEVELS == 2
constexpr u32 kLevels0 = 0x03020100u, kLevels1 = 0x0c080604u, kLevels2 = 0xfdfeff00u, kLevels3 = 0xf4f8fafcu;
#endif

// The codes of one lane, row and section of 128 columns.
struct Codes {
  uint4 low;   // the plane of 4 bits, or columns 0..63 of 8 bits
  uint4 high;  // 8 bits: columns 64..127
  uint2 two;
  u32 one;
};

DEVICE Codes load_codes(const u8* block, int section, int lane) {
  Codes c;
  if constexpr (kPlane8) {
    c.low = *reinterpret_cast<const uint4*>(block + section * 1024 + lane * 16);
    c.high = *reinterpret_cast<const uint4*>(block + section * 1024 + 512 + lane * 16);
  }
  if constexpr (kPlane4)
    c.low = *reinterpret_cast<const uint4*>(block + kOffset4 + section * 512 + lane * 16);
  if constexpr (kPlane2) c.two = *reinterpret_cast<const uint2*>(block + kOffset2 + section * 256 + lane * 8);
  if constexpr (kPlane1) c.one = *reinterpret_cast<const u32*>(block + kOffset1 + section * 128 + lane * 4);
  return c;
}

// Only what step j needs: fewer registers, some bank conflicts.
template <int j>
DEVICE Codes load_step_codes(const u8* block, int section, int lane) {
  Codes c;
  if constexpr (kPlane8) {
    const uint2 v =
        *reinterpret_cast<const uint2*>(block + section * 1024 + j / 2 * 512 + lane * 16 + j % 2 * 8);
    c.low = c.high = make_uint4(v.x, v.y, v.x, v.y);
  }
  if constexpr (kPlane4) {
    const u32 v = *reinterpret_cast<const u32*>(block + kOffset4 + section * 512 + lane * 16 + 4 * j);
    c.low = make_uint4(v, v, v, v);
  }
  if constexpr (kPlane2) {
    const u32 v = *reinterpret_cast<const u32*>(block + kOffset2 + section * 256 + lane * 8 + j / 2 * 4);
    c.two = make_uint2(v, v);
  }
  if constexpr (kPlane1) c.one = *reinterpret_cast<const u32*>(block + kOffset1 + section * 128 + lane * 4);
  return c;
}

template <int j>
DEVICE u32 word(const uint4& v) {
  if constexpr (j == 0) return v.x;
  if constexpr (j == 1) return v.y;
  if constexpr (j == 2) return v.z;
  return v.w;
}
// Bits at `from` moved to `to`.
template <int from, int to>
DEVICE u32 moved(u32 w) {
  if constexpr (from > to) return w >> (from - to);
  return w << (to - from);
}

#if FORM_LEVELS == 1 || FORM_LEVELS == 2
// The levels of four nibbles, as bytes.
DEVICE u32 look_up(u32 nibbles) {
  const u32 select = nibbles & 0x7777u;
  const u32 low = __byte_perm(kLevels0, kLevels1, select), high = __byte_perm(kLevels2, kLevels3, select);
  return __byte_perm(low, high, 0x3210u | ((nibbles & 0x8888u) >> 1));
}
#endif

// Step j's integer codes of less than 8 bits, two to a word, over the bits of `base`.
template <int j>
DEVICE void code_pairs(const Codes& c, u32 base, u32 (&pairs)[4]) {
  u32 w = 0;
  if constexpr (kPlane4) w = word<j>(c.low);
  const u32 two = kPlane2 ? (j < 2 ? c.two.x : c.two.y) : 0;
#define CAIRN_PAIR(i)                                                                              \
  {                                                                                                \
    u32 v = base;                                                                                  \
    constexpr int kTwo = 8 * (j & 1) + 2 * i, kOne = 4 * j + i;                                    \
    if constexpr (kPlane4) v = and_or(w >> (4 * i), 0x000f000fu, v);                               \
    if constexpr (kPlane2)                                                                         \
      v = and_or(moved < kTwo, kPlane4 ? 4 : 0 > (two), kPlane4 ? 0x00300030u : 0x00030003u, v);   \
    if constexpr (kPlane1)                                                                         \
      v = and_or(moved < kOne, kPlane4 ? 4 : 2 > (c.one), kPlane4 ? 0x00100010u : 0x00040004u, v); \
    pairs[i] = v;                                                                                  \
  }
  CAIRN_PAIR(0)
  CAIRN_PAIR(1)
  CAIRN_PAIR(2)
  CAIRN_PAIR(3)
#undef CAIRN_PAIR
}

// Step j of the section as four pairs of bf16; in forms with minima 128 more than the codes, which
// step_scales takes out of the minimum. offset: twice -(128 + zero), or 128 - zero for signed 8-bit codes;
// only used where codes have a zero per group.
template <int j>
DEVICE void decode_step(const Codes& c, u32 offset, u32 (&pairs)[4]) {
  if constexpr (kPlane8) {
    const u32 a = word<2 * (j & 1)>(j < 2 ? c.low : c.high),
              b = word<2 * (j & 1) + 1>(j < 2 ? c.low : c.high);
    if constexpr (FORM_LEVELS == 3) {
      pairs[0] = bf16x2_of_e4m3(a), pairs[1] = bf16x2_of_e4m3(a >> 8);
      pairs[2] = bf16x2_of_e4m3(b), pairs[3] = bf16x2_of_e4m3(b >> 8);
    } else {
      pairs[0] = bf16x2_of_bytes(a);
      pairs[1] = bf16x2_of_bytes(a >> 8);
      pairs[2] = bf16x2_of_bytes(b);
      pairs[3] = bf16x2_of_bytes(b >> 8);
      if constexpr (kCodeZero)  // exact: at most 255 in magnitude
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[i] = add_bf16x2(pairs[i], offset);
    }
    return;
  }
#if FORM_LEVELS == 1 || FORM_LEVELS == 2
  const u32 w = word<j>(c.low), even = look_up(w), odd = look_up(w >> 16);
  pairs[0] = bf16x2_of_bytes(__byte_perm(even, odd, 0x4440));
  pairs[1] = bf16x2_of_bytes(__byte_perm(even, odd, 0x5551));
  pairs[2] = bf16x2_of_bytes(__byte_perm(even, odd, 0x6662));
  pairs[3] = bf16x2_of_bytes(__byte_perm(even, odd, 0x7773));
#else
  constexpr float kZero = -(128.f + FORM_ZERO);
  const u32 zero = kCodeZero ? offset : (__float_as_uint(kZero) >> 16) * 0x10001u;
  code_pairs<j>(c, kBf16Of128, pairs);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if constexpr (!kMin) pairs[i] = add_bf16x2(pairs[i], zero);
#endif
}

// The scales of one row and section.
struct SectionScales {
  uint4 raw;     // as many words as kSectionBytes needs
  float d, min;  // what the chunk's groups share
};

DEVICE SectionScales load_scales(const u8* block, int section, int row) {
  SectionScales s;
  const u8* at = block + kOffsetScales + ((kScaleSections == 1 ? 0 : section) * 8 + row) * kSectionBytes;
  if constexpr (kSectionBytes == 16) s.raw = *reinterpret_cast<const uint4*>(at);
  if constexpr (kSectionBytes == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(at);
    s.raw.x = v.x, s.raw.y = v.y;
  }
  if constexpr (kSectionBytes == 4) s.raw.x = *reinterpret_cast<const u32*>(at);
  if constexpr (kSectionBytes == 2) s.raw.x = *reinterpret_cast<const u16*>(at);
  if constexpr (kRowBytes == 2) s.d = from_f16(*reinterpret_cast<const f16*>(block + kOffsetRows + row * 2));
  if constexpr (kRowBytes == 4) {
    const u32 v = *reinterpret_cast<const u32*>(block + kOffsetRows + row * 4);
    s.d = from_f16(f16(v)), s.min = from_f16(f16(v >> 16));
  }
  return s;
}

// 2^23 + byte i (0..3) of w.
template <int i>
DEVICE float raised_byte(u32 w) {
  return __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7440 + i));
}
template <int i>
DEVICE float float_of_signed_byte(u32 w) {
  return __uint_as_float(__byte_perm(w ^ 0x80808080u, 0x4b000000u, 0x7440 + i)) - (8388608.f + 128.f);
}
DEVICE float half_e4m3(u32 code) {  // codecs/fp4.h
  const u32 magnitude = code & 0x7f;
  // As a half, exponent and mantissa sit 3 bits lower and the bias is 15 instead of 7: 2^8 too small; half of
  // it is 2^7.
  return code == 0x7f ? 0.f : from_f16(f16(magnitude << 7)) * 128.f;
}
DEVICE float e8m0(u32 e) { return __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

// scale and min of step j: w = scale q + min. In half steps [0] is for the first product and [1] for the
// second. offset: see decode_step.
template <int j>
DEVICE void step_scales(const SectionScales& s, float (&scale)[2], float (&min)[2], u32& offset) {
  // d * (2^23 + byte) - 2^23 d is exact: one instruction instead of two
  const float minus_d = -8388608.f * s.d, minus_min = 8388608.f * s.min;
  if constexpr (FORM_SCALES == 1) {
    if constexpr (kHalfSteps) {
      const u32 w = word<j>(s.raw);
      scale[0] = from_f16(f16(w)), scale[1] = from_f16(f16(w >> 16));
    } else {
      constexpr int i = kGroupsPerSection == 1 ? 0 : j;
      scale[0] = from_f16(f16(word<i / 2>(s.raw) >> (16 * (i & 1))));
    }
  } else if constexpr (FORM_SCALES == 2) {
    const u32 w = word<j>(s.raw);
    scale[0] = from_f16(f16(w)), min[0] = from_f16(f16(w >> 16));
  } else if constexpr (FORM_SCALES == 3) {
    if constexpr (kHalfSteps) {
      const u32 w = word<j / 2>(s.raw);
      scale[0] = s.d * float_of_signed_byte<2 * (j & 1)>(w),
      scale[1] = s.d * float_of_signed_byte<2 * (j & 1) + 1>(w);
    } else {
      scale[0] = s.d * float_of_signed_byte<j>(s.raw.x);
    }
  } else if constexpr (FORM_SCALES == 4) {  // 4 s, 4 m
    scale[0] = fmaf(s.d, raised_byte<j>(s.raw.x), minus_d);
    min[0] = fmaf(-s.min, raised_byte<j>(s.raw.y), minus_min);
  } else if constexpr (FORM_SCALES == 5) {
    const u32 w = word<j / 2>(s.raw), low = w & 0x0f0f0f0fu, high = (w >> 4) & 0x0f0f0f0fu;
    constexpr int i = 2 * (j & 1);
    scale[0] = fmaf(s.d, raised_byte<i>(low), minus_d),
    scale[1] = fmaf(s.d, raised_byte<i + 1>(low), minus_d);
    min[0] = fmaf(-s.min, raised_byte<i>(high), minus_min),
    min[1] = fmaf(-s.min, raised_byte<i + 1>(high), minus_min);
  } else if constexpr (FORM_SCALES == 6) {
    scale[0] = e8m0((s.raw.x >> (8 * j)) & 255);
  } else if constexpr (FORM_SCALES == 7) {
    const u32 w = word<j / 2>(s.raw) >> (16 * (j & 1));
    scale[0] = half_e4m3(w & 255), scale[1] = half_e4m3((w >> 8) & 255);
  } else if constexpr (FORM_SCALES == 8) {
    const u32 w = word < kGroupsPerSection == 1 ? 0 : j > (s.raw);
    scale[0] = from_f16(f16(w)), offset = __byte_perm(w, 0, 0x3232);
  } else if constexpr (FORM_SCALES == 9) {
    scale[0] = __uint_as_float(s.raw.x);
  }
  if constexpr (kMin) {  // the codes are 128 too large
    min[0] = fmaf(-128.f, scale[0], min[0]);
    if constexpr (kHalfSteps) min[1] = fmaf(-128.f, scale[1], min[1]);
  }
}

#if FORM_LAYOUT == 2
// Weights as products of few rows multiply them: bf16, times 2^-64 where kSumScale takes that out of the sums
// again. Integer codes of up to 6 bits are read as they are: as bf16 they stand for code * 2^-133.
constexpr bool kScaledIntegers = FORM_LEVELS == 0 && FORM_BITS < 8;
constexpr bool kTwoScales = kScaledIntegers && FORM_BITS == 4 && !kHalfSteps;  // for codes 4 bits further up
constexpr float kSumScale = kScaledIntegers ? 0x1p64f : 1.f;
constexpr int kScaledGroupBytes = 8 * kSteps * 16;  // of 8 rows and a chunk

// Step after step, of 8 rows each: a pair of equal bf16 for the scale, one for codes that lie 4 bits further
// up, one for the minimum; in half steps scale and minimum of either half.
DEVICE uint4 load_scaled(const u8* scaled, int step, int row) {
  return *reinterpret_cast<const uint4*>(scaled + (step * 8 + row) * 16);
}

struct ScaledPair {
  u32 scale, min;
};
// w = scale (code - zero) + min in f32, zero being the form's or this group's, to what scaled_step takes.
DEVICE ScaledPair scaled_pair(float scale, float zero, float min) {
  const float rounded = low_bf16(to_bf16x2(scale, scale));
  if constexpr (!kScaledIntegers) return {to_bf16x2(rounded, rounded), 0};
  // What rounding the scale changes at the middle code goes into the minimum.
  constexpr float kMiddle = ((1 << FORM_BITS) - 1) / 2.f;
  const float m = kMin ? fmaf(scale - rounded, kMiddle, min) : -zero * rounded;
  const float s = rounded * 0x1p69f, low = m * 0x1p-64f;
  return {to_bf16x2(s, s), to_bf16x2(low, low)};
}

// The scales of 8 rows and a chunk, by a warp.
DEVICE void make_scaled(const u8* block, u8* scaled, int lane) {
  const int row = lane & 7, j = lane >> 3;
#pragma unroll
  for (int section = 0; section < kChunk / 128; ++section) {
    const u8* at = block + kOffsetScales + ((kScaleSections == 1 ? 0 : section) * 8 + row) * kSectionBytes;
    [[maybe_unused]] float d = 0, dmin = 0;
    if constexpr (kRowBytes == 2) d = from_f16(*reinterpret_cast<const f16*>(block + kOffsetRows + row * 2));
    if constexpr (kRowBytes == 4) {
      const u32 v = *reinterpret_cast<const u32*>(block + kOffsetRows + row * 4);
      d = from_f16(f16(v)), dmin = from_f16(f16(v >> 16));
    }
    const int group = kGroupsPerSection == 1 ? 0 : j;
    float scale[2] = {}, min[2] = {}, zero = FORM_ZERO;
    if constexpr (FORM_SCALES == 1) {
      if constexpr (kHalfSteps) {
        const u32 w = *reinterpret_cast<const u32*>(at + 4 * j);
        scale[0] = from_f16(f16(w)), scale[1] = from_f16(f16(w >> 16));
      } else {
        scale[0] = from_f16(*reinterpret_cast<const f16*>(at + 2 * group));
      }
    } else if constexpr (FORM_SCALES == 2) {
      const u32 w = *reinterpret_cast<const u32*>(at + 4 * j);
      scale[0] = from_f16(f16(w)), min[0] = from_f16(f16(w >> 16));
    } else if constexpr (FORM_SCALES == 3) {
      if constexpr (kHalfSteps) {
        scale[0] = d * float(i8(at[2 * j])), scale[1] = d * float(i8(at[2 * j + 1]));
      } else {
        scale[0] = d * float(i8(at[j]));
      }
    } else if constexpr (FORM_SCALES == 4) {
      scale[0] = d * float(at[j]), min[0] = -dmin * float(at[4 + j]);
    } else if constexpr (FORM_SCALES == 5) {
#pragma unroll
      for (int h = 0; h < 2; ++h)
        scale[h] = d * float(at[2 * j + h] & 15), min[h] = -dmin * float(at[2 * j + h] >> 4);
    } else if constexpr (FORM_SCALES == 6) {
      scale[0] = e8m0(at[j]);
    } else if constexpr (FORM_SCALES == 7) {
      scale[0] = half_e4m3(at[2 * j]), scale[1] = half_e4m3(at[2 * j + 1]);
    } else if constexpr (FORM_SCALES == 8) {
      const u32 w = *reinterpret_cast<const u32*>(at + 4 * group);
      scale[0] = from_f16(f16(w)), zero = -128.f - high_bf16(w);
    } else if constexpr (FORM_SCALES == 9) {
      scale[0] = *reinterpret_cast<const float*>(at);
    }
    const ScaledPair first = scaled_pair(scale[0], zero, min[0]);
    uint4 out = make_uint4(first.scale, 0, first.min, 0);
    if constexpr (kCodeZero && !kScaledIntegers) {  // the offset of decode_step
      const float offset = -128.f - zero;
      out.z = to_bf16x2(offset, offset);
    }
    if constexpr (kHalfSteps) {
      const ScaledPair second = scaled_pair(scale[1], zero, min[1]);
      out = make_uint4(first.scale, second.scale, first.min, second.min);
    } else if constexpr (kTwoScales) {
      out.y = fma_bf16x2(first.scale, 0x3d803d80u, 0x80008000u);  // / 16
    }
    *reinterpret_cast<uint4*>(scaled + ((section * 4 + j) * 8 + row) * 16) = out;
  }
}

// Step j of a lane's section: pairs of columns as decode_step orders them.
template <int j>
DEVICE uint4 scaled_step(const Codes& c, const uint4& scaled) {
  u32 v[4];
  const u32 scale1 = kHalfSteps ? scaled.y : scaled.x, min1 = kHalfSteps ? scaled.w : scaled.z;
  if constexpr (!kScaledIntegers) {
    decode_step<j>(c, scaled.z, v);
    constexpr u32 kNone = 0x80008000u;  // -0
    return make_uint4(fma_bf16x2(v[0], scaled.x, kNone), fma_bf16x2(v[1], scaled.x, kNone),
                      fma_bf16x2(v[2], scale1, kNone), fma_bf16x2(v[3], scale1, kNone));
  } else if constexpr (kTwoScales) {
    const u32 w = word<j>(c.low), high = w >> 8;
    return make_uint4(fma_bf16x2(w & 0x000f000fu, scaled.x, scaled.z),
                      fma_bf16x2(w & 0x00f000f0u, scaled.y, scaled.z),
                      fma_bf16x2(high & 0x000f000fu, scaled.x, scaled.z),
                      fma_bf16x2(high & 0x00f000f0u, scaled.y, scaled.z));
  } else {
    code_pairs<j>(c, 0, v);
    return make_uint4(fma_bf16x2(v[0], scaled.x, scaled.z), fma_bf16x2(v[1], scaled.x, scaled.z),
                      fma_bf16x2(v[2], scale1, min1), fma_bf16x2(v[3], scale1, min1));
  }
}
#else
constexpr float kSumScale = 1;
constexpr int kScaledGroupBytes = 0;
#endif

}  // namespace form
