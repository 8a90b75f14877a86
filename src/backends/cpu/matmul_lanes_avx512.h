// Sixteen lanes in one 512-bit register. See matmul_lanes_scalar.h for what each operation means.
// Avx512Lanes has the float side only; VnniLanes adds the byte products.
#pragma once

#include <immintrin.h>

#include "backends/cpu/matmul_macros.h"

namespace cairn::cpu {
namespace {

struct Avx512Lanes {
  static constexpr Isa kIsa = Isa::avx512;
  // 12 x 2 accumulators, 2 weights, 1 broadcast of 32 registers: 14 loads for 24 multiply-adds.
  static constexpr int kFloatRows = 12, kFloatPanels = 2;
  static constexpr int kRowPanels = 4;  // hides the latency of a multiply-add

  using I = __m512i;
  using F = __m512;

  static I zero() { return _mm512_setzero_si512(); }
  static I load(const void* p) { return _mm512_loadu_si512(p); }
  static void store(void* p, I x) { _mm512_storeu_si512(p, x); }
  static I bcast(int32_t x) { return _mm512_set1_epi32(x); }
  static I bcast_load(const void* p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return bcast(x);
  }
  template <int n>
  static I shl32(I x) {
    return _mm512_slli_epi32(x, n);
  }
  static F bits_float(I x) { return _mm512_castsi512_ps(x); }
  static I high16(I x) { return _mm512_and_si512(x, _mm512_set1_epi32(int(0xffff0000u))); }
  static F zero_f() { return _mm512_setzero_ps(); }
  static F load_f(const float* p) { return _mm512_loadu_ps(p); }
  static void store_f(float* p, F x) { _mm512_storeu_ps(p, x); }
  static __mmask16 lane_mask(int64_t n) { return __mmask16((1u << n) - 1); }
  static F load_f(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(lane_mask(n), p); }
  static void store_f(float* p, F x, int64_t n) { _mm512_mask_storeu_ps(p, lane_mask(n), x); }
  static F bcast_f(float x) { return _mm512_set1_ps(x); }
  static F mul_f(F x, F y) { return _mm512_mul_ps(x, y); }
  static F fma(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
  static F fnma(F x, F y, F z) { return _mm512_fnmadd_ps(x, y, z); }
  static F load_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static F load_e4m3(const void* p) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    return _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(int16_t(0xbf80))));
  }
  static F float_bytes(const void* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  // Bits at .. at + bits - 1 of each 32-bit lane, as a number. A look-up sees the low four bits only.
  template <int at, int bits>
  static F field(I x) {
    const I low = at ? _mm512_srli_epi32(x, at) : x;
    if constexpr (bits > 4) return _mm512_cvtepi32_ps(_mm512_and_si512(low, bcast((1 << bits) - 1)));
    constexpr auto k = [](int i) { return float(i & ((1 << bits) - 1)); };
    return _mm512_permutexvar_ps(low, _mm512_setr_ps(0, 1, k(2), k(3), k(4), k(5), k(6), k(7), k(8), k(9),
                                                     k(10), k(11), k(12), k(13), k(14), k(15)));
  }
  // Bits at .. at + 31 of low with high above it; at is 1 to 31.
  template <int at>
  static I join(I low, I high) {
    return _mm512_or_si512(_mm512_srli_epi32(low, at), _mm512_slli_epi32(high, 32 - at));
  }
  static F add_f(F x, F y) { return _mm512_add_ps(x, y); }
  // Entry number (x >> at) & 15 of a table of 16 floats.
  template <int at>
  static F entry(I x, const float* table) {
    return _mm512_permutexvar_ps(at ? _mm512_srli_epi32(x, at) : x, _mm512_loadu_ps(table));
  }
};

#ifdef __AVX512VNNI__
struct VnniLanes : Avx512Lanes {
  static constexpr Isa kIsa = Isa::vnni;
  // 12 dot products, 12 sums (integer or float), 2 weights, 1 broadcast: 8 loads for 12 products.
  static constexpr int kRows = 6, kPanels = 2;
  static constexpr int kSignedOffset = 128;

  template <int n, int mask>
  static I shr_and(I x) {
    return _mm512_and_si512(n ? _mm512_srli_epi16(x, n) : x, _mm512_set1_epi8(char(mask)));
  }
  template <int n, int mask>
  static I shl_and(I x) {
    return _mm512_and_si512(n ? _mm512_slli_epi16(x, n) : x, _mm512_set1_epi8(char(mask)));
  }
  static I bit_or(I x, I y) { return _mm512_or_si512(x, y); }
  static I add(I x, I y) { return _mm512_add_epi32(x, y); }
  static I sub(I x, I y) { return _mm512_sub_epi32(x, y); }
  static I mul(I x, I y) { return _mm512_mullo_epi32(x, y); }
  static I pair(I low, I high) {
    return _mm512_mask_blend_epi16(0xaaaaaaaau, low, _mm512_slli_epi32(high, 16));
  }
  static I widen_u8(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static I widen_s8(const void* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static I widen_u16(const void* p) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  template <int n>
  static I high2(I x) {
    return _mm512_slli_epi32(_mm512_and_si512(_mm512_srli_epi32(x, n), _mm512_set1_epi32(3)), 4);
  }
  template <int n>
  static I spread4(I x) {
    const __m512i bits = _mm512_and_si512(_mm512_srli_epi32(x, n), _mm512_set1_epi32(15));
    const __m512i apart = _mm512_mullo_epi32(bits, _mm512_set1_epi32(0x00204081));
    return _mm512_slli_epi32(_mm512_and_si512(apart, _mm512_set1_epi8(1)), 4);
  }
  static F power_of_two(I e) {
    const __m512i one = _mm512_set1_epi32(1);
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
    const __m512i small = _mm512_slli_epi32(_mm512_add_epi32(one, _mm512_min_epi32(e, one)), 21);
    return _mm512_castsi512_ps(_mm512_max_epi32(normal, small));
  }
  static I lookup(I x, const int8_t* table) {
    return _mm512_shuffle_epi8(
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), x);
  }
  static I dp(I acc, I u, I s) { return _mm512_dpbusd_epi32(acc, u, s); }
  // w + 128 as an unsigned byte.
  static I signed_form(I w) { return _mm512_xor_si512(w, _mm512_set1_epi8(char(0x80))); }
  static I dp_signed(I acc, I w, I s) { return dp(acc, w, s); }
  static I dp16(I acc, I x, I y) { return _mm512_dpwssd_epi32(acc, x, y); }
  // Sub-blocks' six-bit scales (16 int32 each) and minima (int16 pairs) of q4_k and q5_k from their 12 x 16
  // bytes.
  static void kq_scales(const std::byte* b, I (&scale)[8], I (&pair)[4]) {
    const I z0 = load(b), z1 = load(b + 64), z2 = load(b + 128);
    const I six = _mm512_set1_epi8(63);
    const I scales[2] = {_mm512_and_si512(z0, six), bit_or(shr_and<0, 15>(z2), shr_and<2, 0x30>(z0))};
    const I minima[2] = {_mm512_and_si512(z1, six), bit_or(shr_and<4, 15>(z2), shr_and<2, 0x30>(z1))};
    const I row = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const I pairs =
        _mm512_or_si512(row, _mm512_add_epi32(_mm512_slli_epi32(row, 16), _mm512_set1_epi32(0x100000)));
    unroll<2>([&](auto h) CAIRN_INLINE {
      unroll<4>([&](auto s) CAIRN_INLINE {
        scale[4 * h + s] = _mm512_maskz_permutexvar_epi8(0x1111111111111111u,
                                                         _mm512_add_epi32(row, bcast(16 * s)), scales[h]);
      });
      unroll<2>([&](auto i) CAIRN_INLINE {
        pair[2 * h + i] = _mm512_maskz_permutexvar_epi8(
            0x5555555555555555u, _mm512_add_epi32(pairs, bcast(0x200020 * i)), minima[h]);
      });
    });
  }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }

  static uint32_t max_magnitude_bits(const float* x, int64_t n) {  // n a multiple of 16
    const __m512i m = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16)
      most = _mm512_max_epi32(most, _mm512_and_si512(m, _mm512_loadu_si512(x + i)));
    return uint32_t(_mm512_reduce_max_epi32(most));
  }
  static int quantize16(const float* x, float inverse, int8_t* q) {
    const __m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
    const __m128i bytes = _mm512_cvtsepi32_epi8(i);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), bytes);
    return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(bytes));
  }
};
#endif

}  // namespace
}  // namespace cairn::cpu
