// How the cache stores keys and values. CACHE_FORM 0: bf16, 1: f16, 2: q8_0, 3: e4m3 (values times 1).
//
// 16-bit forms: a head's tokens of a page are rows of dim elements. 8-bit forms: rows of dim codes, then, for
// q8_0, the scales [token][dim / 32] of the page's tokens in f16: codes of a tile stay one run of aligned
// memory. Products with f16 and 8-bit caches are in f16, others in bf16: codes times scales keep all their
// bits that way.
#pragma once

#include "device.cuh"

#ifndef CACHE_FORM
#define CACHE_FORM 0
#endif
#define CACHE_BYTES (CACHE_FORM >= 2)  // codes of a byte
#define CACHE_SCALES (CACHE_FORM == 2)
#define PRODUCTS_F16 (CACHE_FORM >= 1)

// Bytes of a head's tokens of a page.
template <int dim, int page>
DEVICE constexpr i64 head_page_bytes() {
  return CACHE_BYTES ? i64(page) * (dim + (CACHE_SCALES ? dim / 32 * 2 : 0)) : i64(page) * dim * 2;
}

DEVICE u32 multiply_f16x2(u32 a, u32 b) {
  u32 y;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
DEVICE u32 add_f16x2(u32 a, u32 b) {
  u32 y;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}

// Four codes as four f16 in order; scale: the f16 scales (q8_0) of the first and the second of each two.
DEVICE void unpack_codes(u32 codes, u32 scale, u32& low, u32& high) {
  if (CACHE_SCALES) {
    // A byte b under the exponent of 1024 is 1024 + b; signed codes are offset by 128 first.
    const u32 offset = codes ^ 0x80808080u;
    low = multiply_f16x2(add_f16x2(__byte_perm(offset, 0x64646464u, 0x4140), 0xe480e480u), scale);
    high = multiply_f16x2(add_f16x2(__byte_perm(offset, 0x64646464u, 0x4342), 0xe480e480u), scale);
  } else {
#if __CUDA_ARCH__ >= 890
    asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.rn.f16x2.e4m3x2 %0, a;\ncvt.rn.f16x2.e4m3x2 %1, b;\n}"
        : "=r"(low), "=r"(high)
        : "r"(codes));
#else
    // Exponent and mantissa of e4m3 lie in those of f16 with 2^-8 of the value.
    const u32 a = __byte_perm(codes, 0, 0x1404), b = __byte_perm(codes, 0, 0x3424);  // each in a high byte
    low = multiply_f16x2((a & 0x80008000u) | (a & 0x7f007f00u) >> 1, 0x5c005c00u);
    high = multiply_f16x2((b & 0x80008000u) | (b & 0x7f007f00u) >> 1, 0x5c005c00u);
#endif
  }
}
// Sixteen codes as 32 bytes.
DEVICE void unpack_16(uint4 codes, u16 scale, uint4& first, uint4& second) {
  const u32 twice = u32(scale) * 0x10001u;
  unpack_codes(codes.x, twice, first.x, first.y);
  unpack_codes(codes.y, twice, first.z, first.w);
  unpack_codes(codes.z, twice, second.x, second.y);
  unpack_codes(codes.w, twice, second.z, second.w);
}

// Rounded to nearest even; beyond 448 the largest code.
DEVICE u8 to_e4m3(float x) {
#if __CUDA_ARCH__ >= 890
  u16 y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(0.f), "f"(x));
  return u8(y);
#else
  const u32 sign = __float_as_uint(x) >> 24 & 0x80;
  const float size = fminf(fabsf(x), 448.f);
  if (size < 0.015625f) return u8(sign | u32(__float2int_rn(size * 512.f)));  // subnormal: multiples of 2^-9
  const u32 bits = __float_as_uint(size), rounded = bits + 0x7ffff + (bits >> 20 & 1);
  return u8(sign | ((rounded >> 20) - (120 << 3)));
#endif
}
