// What the bf16 kernels (AVX512-BF16 and AMX) share: rounding a tile of the cache to bf16 pairs, and the
// softmax of a strip. A packed K tile is [dim / 2][64 tokens] pairs of dims, a packed V tile [32 pairs of
// tokens][dim]: both are what dpbf16 multiplies with a broadcast pair, and what AMX takes as its second
// operand. A packed query strip is [dim / 32][16 vectors][32], AMX's first operand. Included by files
// compiled for one instruction set each; the anonymous namespace keeps their code apart.
#include <cstring>
#include <limits>

#include "backends/cpu/attention_avx512_lanes.h"
#include "backends/cpu/attention_tiles.h"

namespace cairn::cpu {
namespace {

constexpr int kTokens = 64;

inline __m512i to_bf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

void pack_q_bf16(const float* const* rows, int dim, int dim_padded, void* strip) {
  auto* out = static_cast<uint16_t*>(strip);
  for (int d = 0; d < dim_padded; d += 32)
    for (int i = 0; i < kStripVectors; ++i, out += 32) {
      const auto part = [&](int from) {
        const int left = dim - from;
        if (!rows[i] || left <= 0) return _mm512_setzero_ps();
        return _mm512_maskz_loadu_ps(__mmask16(left >= 16 ? 0xffff : (1 << left) - 1), rows[i] + from);
      };
      _mm512_storeu_si512(out, to_bf16(part(d), part(d + 16)));
    }
}

// Sixteen elements of a stored row from d on as floats; past `dim` zeros. Not for bf16.
template <RowForm form>
__m512 load_floats(const std::byte* row, int d, int dim) {
  if constexpr (form == RowForm::q8_0) {
    const std::byte* block = row + d / 32 * 34;
    uint16_t scale;
    std::memcpy(&scale, block, sizeof scale);
    const __m512 q = Avx512::load_i8(reinterpret_cast<const int8_t*>(block) + 2 + d % 32);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_set1_epi16(int16_t(scale))), q);
  } else {
    static_assert(form == RowForm::f16);
    const auto* halves = reinterpret_cast<const uint16_t*>(row) + d;
    if (d + 16 <= dim) return Avx512::load_f16(halves);
    const __mmask16 mask = __mmask16(d < dim ? (1 << (dim - d)) - 1 : 0);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves));
  }
}

// Thirty-two elements as bf16.
template <RowForm form>
__m512i load_bf16_row(const std::byte* row, int d, int dim) {
  if constexpr (form == RowForm::bf16) {
    const auto* halves = reinterpret_cast<const uint16_t*>(row) + d;
    if (d + 32 <= dim) return _mm512_loadu_si512(halves);
    return _mm512_maskz_loadu_epi16((__mmask32{1} << (dim - d)) - 1,
                                    halves);  // d < dim: padded by less than 32
  } else {
    return to_bf16(load_floats<form>(row, d, dim), load_floats<form>(row, d + 16, dim));
  }
}

template <RowForm form>
void pack_k_form(const std::byte* const* rows, int tokens, int dim, int dim_padded, uint32_t* tile) {
  for (int t = 0; t < tokens; t += 16)
    for (int d = 0; d < dim_padded; d += 32) {
      __m512 pairs[16];
      for (int i = 0; i < 16; ++i) pairs[i] = _mm512_castsi512_ps(load_bf16_row<form>(rows[t + i], d, dim));
      Avx512::transpose(pairs);
      for (int i = 0; i < 16; ++i) _mm512_storeu_ps(tile + (d / 2 + i) * kTokens + t, pairs[i]);
    }
}

// Interleaves the halves of a register: 0, 16, 1, 17, ...
inline __m512i interleave(__m512i both) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

template <RowForm form>
void pack_v_form(const std::byte* const* rows, int tokens, int dim, int dim_padded, uint32_t* tile) {
  const int pairs =
      (tokens + 31) / 32 * 16;  // AMX reads 32 tokens at a time; the rows past `tokens` are zeros
  for (int pair = 0; pair < pairs; ++pair) {
    const std::byte *even = rows[2 * pair], *odd = rows[2 * pair + 1];
    for (int d = 0; d < dim_padded; d += 16) {
      __m512i both;
      if constexpr (form == RowForm::bf16) {
        const auto* a = reinterpret_cast<const uint16_t*>(even) + d;
        const auto* b = reinterpret_cast<const uint16_t*>(odd) + d;
        const __mmask16 mask = __mmask16(d + 16 <= dim ? 0xffff : d < dim ? (1 << (dim - d)) - 1 : 0);
        both = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi16(mask, a)),
                                  _mm256_maskz_loadu_epi16(mask, b), 1);
      } else {
        both = to_bf16(load_floats<form>(even, d, dim), load_floats<form>(odd, d, dim));
      }
      _mm512_storeu_si512(tile + pair * dim_padded + d, interleave(both));
    }
  }
}

void pack_k_bf16(RowForm form, const std::byte* const* rows, int tokens, int dim, int dim_padded,
                 void* tile) {
  auto* out = static_cast<uint32_t*>(tile);
  switch (form) {
    case RowForm::f16: return pack_k_form<RowForm::f16>(rows, tokens, dim, dim_padded, out);
    case RowForm::bf16: return pack_k_form<RowForm::bf16>(rows, tokens, dim, dim_padded, out);
    case RowForm::q8_0: return pack_k_form<RowForm::q8_0>(rows, tokens, dim, dim_padded, out);
    case RowForm::f32: return;  // has f32 products
  }
}

void pack_v_bf16(RowForm form, const std::byte* const* rows, int tokens, int dim, int dim_padded,
                 void* tile) {
  auto* out = static_cast<uint32_t*>(tile);
  switch (form) {
    case RowForm::f16: return pack_v_form<RowForm::f16>(rows, tokens, dim, dim_padded, out);
    case RowForm::bf16: return pack_v_form<RowForm::bf16>(rows, tokens, dim, dim_padded, out);
    case RowForm::q8_0: return pack_v_form<RowForm::q8_0>(rows, tokens, dim, dim_padded, out);
    case RowForm::f32: return;
  }
}

// 2^x to 3e-6 of itself, far below the rounding of a probability to bf16; 0 for -infinity, NaN for NaN.
inline __m512 exp2_short(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  __m512 p = _mm512_set1_ps(1.353418073e-02f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.201143608e-02f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.414427711e-01f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.930038318e-01f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.000002593e+00f));
  return _mm512_scalef_ps(p, x);  // times 2^floor(x)
}

inline __m512 tanh_short(__m512 x) {
  const __m512 u = exp2_short(_mm512_mul_ps(_mm512_set1_ps(-2.885390082f), Avx512::abs(x)));
  const __m512 one = _mm512_set1_ps(1);
  return Avx512::copy_sign(_mm512_div_ps(_mm512_sub_ps(one, u), _mm512_add_ps(one, u)), x);
}

// Scores of vector i to bf16 probabilities over the first half of the same memory; updates its maximum and
// sum, and scales its output to the maximum.
inline void soften_bf16(const StripArgs& a, int i) {
  float* scores = a.scores + i * kTokens;
  const int first = a.first[i], last = a.last[i];
  if (first >= last) {
    _mm512_storeu_si512(scores, _mm512_setzero_si512());
    _mm512_storeu_si512(scores + 16, _mm512_setzero_si512());
    return;
  }
  const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 x[4];
  for (int c = 0; c < 4; ++c) {
    x[c] = _mm512_mul_ps(_mm512_loadu_ps(scores + 16 * c), _mm512_set1_ps(a.scale_log2));
    if (a.softcap != 0)
      x[c] = _mm512_mul_ps(
          tanh_short(_mm512_mul_ps(_mm512_loadu_ps(scores + 16 * c), _mm512_set1_ps(a.scale / a.softcap))),
          _mm512_set1_ps(a.softcap * 1.44269504f));
    if (a.slopes)
      x[c] = _mm512_fmadd_ps(_mm512_set1_ps(a.slopes[i]),
                             _mm512_add_ps(Avx512::iota(16 * c), _mm512_set1_ps(a.offset[i])), x[c]);
  }
  if (first > 0 || last < kTokens)
    for (int c = 0; c < 4; ++c)
      x[c] = Avx512::keep(x[c], 16 * c, first, last, -std::numeric_limits<float>::infinity());
  __m512 most = none;
  for (int c = 0; c < 4; ++c) most = _mm512_max_ps(most, x[c]);
  const float before = a.m[i], found = Avx512::horizontal_max(most);
  const float now = found > before ? found : before;
  __m512 sum = _mm512_setzero_ps();
  for (int c = 0; c < 4; ++c) {
    x[c] = exp2_short(_mm512_sub_ps(x[c], _mm512_set1_ps(now)));
    sum = _mm512_add_ps(sum, x[c]);
  }
  _mm512_storeu_si512(scores, to_bf16(x[0], x[1]));
  _mm512_storeu_si512(scores + 16, to_bf16(x[2], x[3]));
  float total = Avx512::horizontal_sum(sum);
  if (now > before) {
    const __m512 factor = exp2_short(_mm512_set1_ps(before - now));
    total += _mm512_cvtss_f32(factor) * a.l[i];
    float* o = a.o + i * a.dim_v;
    for (int d = 0; d < a.dim_v; d += 16)
      _mm512_storeu_ps(o + d, _mm512_mul_ps(_mm512_loadu_ps(o + d), factor));
    a.m[i] = now;
  } else {
    total += a.l[i];
  }
  a.l[i] = total;
}

}  // namespace
}  // namespace cairn::cpu
