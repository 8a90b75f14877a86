// Sixteen floats of AVX-512, for the tile kernels of this and higher levels.
#include <immintrin.h>

#include <cstdint>

namespace cairn::cpu {
namespace {

struct Avx512 {
  static constexpr int N = 16, kBlock = 4;  // 4 rows x 4 vectors of sums
  using F = __m512;
  static F set(float v) { return _mm512_set1_ps(v); }
  static F iota(int from) {
    return _mm512_add_ps(_mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_ps(float(from)));
  }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
  }
  static F load_i8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static float f16(uint16_t h) { return _cvtsh_ss(h); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static void store_f16(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
  static void store_bf16(uint16_t* p, F a) {
    const __m512i bits = _mm512_castps_si512(a), upper_half = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper_half, _mm512_set1_epi32(1));
    __m512i high =
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    high = _mm512_mask_or_epi32(high, nan, upper_half, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(high));
  }
  static void store_i8(int8_t* p, F a) {  // towards zero
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a)));
  }
  static uint16_t to_f16(float v) {
    return uint16_t(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(v), _MM_FROUND_TO_NEAREST_INT)));
  }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
  static F copy_sign(F a, F b) { return _mm512_or_ps(abs(a), _mm512_and_ps(_mm512_set1_ps(-0.0f), b)); }
  static F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F times_power_of_two(F a, F n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_mul_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
  }
  static F keep(F a, int at, int first, int last, float otherwise) {
    if (first <= at && last >= at + N) return a;
    const int low = first > at ? first - at : 0, high = last < at ? 0 : last - at < N ? last - at : N;
    const uint32_t mask = ((uint32_t{1} << high) - 1) & ~((uint32_t{1} << (low < N ? low : N)) - 1);
    return _mm512_mask_blend_ps(__mmask16(mask), _mm512_set1_ps(otherwise), a);
  }
  static float first(F a) { return _mm512_cvtss_f32(a); }
  static __m256 upper(F a) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)); }
  static float horizontal_max(F a) {
    const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), upper(a));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static float horizontal_sum(F a) {
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), upper(a));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static void transpose(F (&a)[N]) {
    F pairs[N], quads[N];
    for (int i = 0; i < N; i += 2) {
      pairs[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
      pairs[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < N; i += 4) {
      quads[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
      quads[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
      quads[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
      quads[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    // quads[4 g + c] holds, in 128-bit lane b, column 4 b + c of rows 4 g .. 4 g + 3.
    for (int c = 0; c < 4; ++c) {
      const F low = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);        // lanes 0, 2 of groups 0, 1
      const F high = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);  // of groups 2, 3
      const F low_odd = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);    // lanes 1, 3
      const F high_odd = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
      a[c] = _mm512_shuffle_f32x4(low, high, 0x88);
      a[4 + c] = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
      a[8 + c] = _mm512_shuffle_f32x4(low, high, 0xdd);
      a[12 + c] = _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd);
    }
  }
};

}  // namespace
}  // namespace cairn::cpu
