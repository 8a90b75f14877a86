// Sixteen lanes in two 256-bit registers. See matmul_lanes_scalar.h for what each operation means.
#pragma once

#include <immintrin.h>

#include "backends/cpu/matmul_macros.h"

namespace cairn::cpu {
namespace {

struct Avx2Lanes {
  static constexpr Isa kIsa = Isa::avx2;
  static constexpr int kRows = 4, kPanels = 1;
  static constexpr int kFloatRows = 4, kFloatPanels = 1;
  static constexpr int kRowPanels = 4;
  static constexpr int kSignedOffset = 0;

  struct I {
    __m256i a, b;
  };
  struct F {
    __m256 a, b;
  };

  static I zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I load(const void* p) {
    const auto* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  static void store(void* p, I x) {
    auto* q = static_cast<__m256i*>(p);
    _mm256_storeu_si256(q, x.a);
    _mm256_storeu_si256(q + 1, x.b);
  }
  static I both(__m256i x) { return {x, x}; }
  static I bcast(int32_t x) { return both(_mm256_set1_epi32(x)); }
  static I bcast_load(const void* p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return bcast(x);
  }
  template <int n, int mask>
  static I shr_and(I x) {
    const __m256i m = _mm256_set1_epi8(char(mask));
    return {_mm256_and_si256(_mm256_srli_epi16(x.a, n), m), _mm256_and_si256(_mm256_srli_epi16(x.b, n), m)};
  }
  template <int n, int mask>
  static I shl_and(I x) {
    const __m256i m = _mm256_set1_epi8(char(mask));
    return {_mm256_and_si256(_mm256_slli_epi16(x.a, n), m), _mm256_and_si256(_mm256_slli_epi16(x.b, n), m)};
  }
  static I bit_or(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
  static I add(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  static I sub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
  static I mul(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
  template <int n>
  static I shl32(I x) {
    return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
  }
  static I low16(I x) {
    const __m256i m = _mm256_set1_epi32(0xffff);
    return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
  }
  static I high16(I x) {
    const __m256i m = _mm256_set1_epi32(int(0xffff0000u));
    return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
  }
  static I pair(I low, I high) { return bit_or(low16(low), shl32<16>(high)); }
  static I widen_u8(const void* p) {
    const auto* q = static_cast<const char*>(p);
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + 8)))};
  }
  static I widen_s8(const void* p) {
    const auto* q = static_cast<const char*>(p);
    return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + 8)))};
  }
  static I widen_u16(const void* p) {
    const auto* q = static_cast<const __m128i*>(p);
    return {_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1))};
  }
  template <int n>
  static I high2(I x) {
    const __m256i m = _mm256_set1_epi32(3);
    return {_mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(x.a, n), m), 4),
            _mm256_slli_epi32(_mm256_and_si256(_mm256_srli_epi32(x.b, n), m), 4)};
  }
  template <int n>
  static __m256i spread4_half(__m256i x) {
    const __m256i bits = _mm256_and_si256(_mm256_srli_epi32(x, n), _mm256_set1_epi32(15));
    const __m256i apart = _mm256_mullo_epi32(bits, _mm256_set1_epi32(0x00204081));
    return _mm256_slli_epi32(_mm256_and_si256(apart, _mm256_set1_epi8(1)), 4);
  }
  template <int n>
  static I spread4(I x) {
    return {spread4_half<n>(x.a), spread4_half<n>(x.b)};
  }
  static __m256 power_of_two_half(__m256i e) {
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    const __m256i small = _mm256_slli_epi32(_mm256_add_epi32(one, _mm256_min_epi32(e, one)), 21);
    return _mm256_castsi256_ps(_mm256_max_epi32(normal, small));
  }
  static F power_of_two(I e) { return {power_of_two_half(e.a), power_of_two_half(e.b)}; }
  static I lookup(I x, const int8_t* table) {
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return {_mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b)};
  }
  static __m256i dp_half(__m256i acc, __m256i u, __m256i s) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
  }
  // maddubs saturates at 32767: 127 * 127 * 2 stays below.
  static I dp(I acc, I u, I s) { return {dp_half(acc.a, u.a, s.a), dp_half(acc.b, u.b, s.b)}; }
  static I signed_form(I w) { return w; }
  // |w| times s with w's sign: 128 * 127 * 2 stays below 32767.
  static I dp_signed(I acc, I w, I s) {
    return {dp_half(acc.a, _mm256_abs_epi8(w.a), _mm256_sign_epi8(s.a, w.a)),
            dp_half(acc.b, _mm256_abs_epi8(w.b), _mm256_sign_epi8(s.b, w.b))};
  }
  static I dp16(I acc, I x, I y) {
    return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)),
            _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b))};
  }
  static F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static F bits_float(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
  static F zero_f() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F load_f(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store_f(float* p, F x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  static __m256i lane_mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F load_f(const float* p, int64_t n) {
    return {_mm256_maskload_ps(p, lane_mask(n)), _mm256_maskload_ps(p + 8, lane_mask(n - 8))};
  }
  static void store_f(float* p, F x, int64_t n) {
    _mm256_maskstore_ps(p, lane_mask(n), x.a);
    _mm256_maskstore_ps(p + 8, lane_mask(n - 8), x.b);
  }
  static F bcast_f(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F mul_f(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
  static F fnma(F x, F y, F z) { return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)}; }
  static F load_f16(const void* p) {
    const auto* q = static_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
  }
  // 2^-8 times the e4m3 values of 16 bytes that are not NaN: their bits as halves'.
  static F load_e4m3(const void* p) {
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(int16_t(0xbf80)));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  static F float_bytes(const void* p) { return to_float(widen_u8(p)); }  // of 16 unsigned bytes
  // Bits at .. at + bits - 1 of each 32-bit lane, as a number.
  template <int at, int bits>
  static F field(I x) {
    const __m256i m = _mm256_set1_epi32((1 << bits) - 1);
    return to_float(
        {_mm256_and_si256(_mm256_srli_epi32(x.a, at), m), _mm256_and_si256(_mm256_srli_epi32(x.b, at), m)});
  }
  // Bits at .. at + 31 of low with high above it; at is 1 to 31.
  template <int at>
  static I join(I low, I high) {
    return {_mm256_or_si256(_mm256_srli_epi32(low.a, at), _mm256_slli_epi32(high.a, 32 - at)),
            _mm256_or_si256(_mm256_srli_epi32(low.b, at), _mm256_slli_epi32(high.b, 32 - at))};
  }
  static F add_f(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  // A look-up sees three bits; the fourth picks one of two.
  static __m256 entry_half(__m256i index, __m256 low, __m256 high) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  // Entry number (x >> at) & 15 of a table of 16 floats.
  template <int at>
  static F entry(I x, const float* table) {
    const __m256 low = _mm256_loadu_ps(table), high = _mm256_loadu_ps(table + 8);
    return {entry_half(_mm256_srli_epi32(x.a, at), low, high),
            entry_half(_mm256_srli_epi32(x.b, at), low, high)};
  }

  static uint32_t max_magnitude_bits(const float* x, int64_t n) {  // n a multiple of 8
    const __m256i m = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 8)
      most = _mm256_max_epi32(
          most, _mm256_and_si256(m, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i))));
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return uint32_t(_mm_cvtsi128_si32(h));
  }
  static int quantize16(const float* x, float inverse, int8_t* q) {
    const __m256 s = _mm256_set1_ps(inverse);
    const __m256i i0 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), s));
    const __m256i i1 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), s));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(i0, i1), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), bytes);
    const __m256i sums = _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), _mm256_set1_epi16(1));
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return _mm_cvtsi128_si32(h);
  }
};

}  // namespace
}  // namespace cairn::cpu
