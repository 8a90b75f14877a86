#include <immintrin.h>

#include "backends/cpu/peak_loops.h"

namespace cairn::cpu {

double loop_f32_avx512(int64_t rounds) {
  __m512 acc[16];
  for (auto& a : acc) a = _mm512_setzero_ps();
  __m512 x = _mm512_set1_ps(1.0f), y = _mm512_set1_ps(1e-9f);
  for (int64_t i = 0; i < rounds; i++) {
    __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 16
    for (auto& a : acc) a = _mm512_fmadd_ps(x, y, a);
  }
  for (auto& a : acc) __asm__ volatile("" : : "v"(a));
  return double(rounds) * 16 * 32;
}

double loop_bf16_vnni(int64_t rounds) {
  __m512 acc[16];
  for (auto& a : acc) a = _mm512_setzero_ps();
  __m512i x = _mm512_set1_epi32(0x3f803f80), y = x;
  for (int64_t i = 0; i < rounds; i++) {
    __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 16
    for (auto& a : acc) a = _mm512_dpbf16_ps(a, __m512bh(x), __m512bh(y));
  }
  for (auto& a : acc) __asm__ volatile("" : : "v"(a));
  return double(rounds) * 16 * 64;
}

double loop_int8_vnni(int64_t rounds) {
  __m512i acc[16];
  for (auto& a : acc) a = _mm512_setzero_si512();
  __m512i x = _mm512_set1_epi32(0x01010101), y = x;
  for (int64_t i = 0; i < rounds; i++) {
    __asm__ volatile("" : "+v"(x), "+v"(y));
#pragma GCC unroll 16
    for (auto& a : acc) a = _mm512_dpbusd_epi32(a, x, y);
  }
  for (auto& a : acc) __asm__ volatile("" : : "v"(a));
  return double(rounds) * 16 * 128;
}

}  // namespace cairn::cpu
