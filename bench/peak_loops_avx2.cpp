#include <immintrin.h>

#include "peak_loops.h"

namespace cairn::bench {

uint64_t read_avx2(const void* memory, int64_t bytes) {
  const auto* p = static_cast<const __m256i*>(memory);
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (int64_t i = 0; i < bytes / 128; i++, p += 4) {
    a = _mm256_xor_si256(a, _mm256_loadu_si256(p));
    b = _mm256_xor_si256(b, _mm256_loadu_si256(p + 1));
    c = _mm256_xor_si256(c, _mm256_loadu_si256(p + 2));
    d = _mm256_xor_si256(d, _mm256_loadu_si256(p + 3));
  }
  a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  return uint64_t(_mm256_extract_epi64(a, 0) ^ _mm256_extract_epi64(a, 1) ^ _mm256_extract_epi64(a, 2));
}

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

}  // namespace cairn::bench
