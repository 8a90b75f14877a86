// The left side in bf16, rounded to nearest even (AVX512-BF16). For the _vnni and _amx sources only.
#pragma once

#include <immintrin.h>

#include "backends/cpu/matmul_act.h"

namespace cairn::cpu {
namespace {

inline void prepare_bf16(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act) {
  const size_t bytes = act_row_bytes(ActForm::bf16, cols);
  const int64_t padded = ActFloat::padded(cols);
  for (int64_t r = rows.begin; r < rows.end; r++) {
    const float* const from = x + r * ldx;
    std::byte* const to = act + size_t(r) * bytes;
    for (int64_t k = 0; k < padded; k += 16) {
      const int64_t left = cols - k;
      const __mmask16 mask = left >= 16 ? __mmask16(0xffff)
                             : left > 0 ? __mmask16((1u << left) - 1)
                                        : __mmask16(0);
      const __m256bh pairs = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + k));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k * 2), __m256i(pairs));
    }
  }
}

}  // namespace
}  // namespace cairn::cpu
