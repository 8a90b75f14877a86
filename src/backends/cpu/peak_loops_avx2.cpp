#include <immintrin.h>

#include "backends/cpu/peak_loops.h"

namespace cairn::cpu {

double loop_f32_avx2(int64_t rounds) {
  __m256 acc[12];
  for (auto& a : acc) a = _mm256_setzero_ps();
  __m256 x = _mm256_set1_ps(1.0f), y = _mm256_set1_ps(1e-9f);
  for (int64_t i = 0; i < rounds; i++) {
    __asm__ volatile("" : "+x"(x), "+x"(y));
    for (auto& a : acc) a = _mm256_fmadd_ps(x, y, a);
  }
  for (auto& a : acc) __asm__ volatile("" : : "x"(a));
  return double(rounds) * 12 * 16;
}

}  // namespace cairn::cpu
