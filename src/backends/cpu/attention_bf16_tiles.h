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

// Thirty-two elements of a stored row from d on.
struct Floats {
  __m512 low, high;
};

// With `whole` the row has all of them; else those past `dim` are zeros. Not for bf16.
template <RowForm form, bool whole>
Floats load_floats(const std::byte* row, int d, int dim) {
  if constexpr (form == RowForm::q8_0) {  // whole blocks are stored
    const std::byte* block = row + d / 32 * 34;
    uint16_t half;
    std::memcpy(&half, block, sizeof half);
    const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16(int16_t(half)));
    const auto* q = reinterpret_cast<const int8_t*>(block) + 2;
    return {_mm512_mul_ps(scale, Avx512::load_i8(q)), _mm512_mul_ps(scale, Avx512::load_i8(q + 16))};
  } else {
    static_assert(form == RowForm::f16);
    const auto* halves = reinterpret_cast<const uint16_t*>(row) + d;
    if constexpr (whole) return {Avx512::load_f16(halves), Avx512::load_f16(halves + 16)};
    const __mmask32 mask = dim - d >= 32 ? ~__mmask32{0} : (__mmask32{1} << (dim - d)) - 1;  // d < dim
    const __m512i part = _mm512_maskz_loadu_epi16(mask, halves);
    return {_mm512_cvtph_ps(_mm512_castsi512_si256(part)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64(part, 1))};
  }
}

template <RowForm form, bool whole>
__m512i load_bf16_row(const std::byte* row, int d, int dim) {
  if constexpr (form == RowForm::bf16) {
    const auto* halves = reinterpret_cast<const uint16_t*>(row) + d;
    if constexpr (whole) return _mm512_loadu_si512(halves);
    const __mmask32 mask = dim - d >= 32 ? ~__mmask32{0} : (__mmask32{1} << (dim - d)) - 1;
    return _mm512_maskz_loadu_epi16(mask, halves);
  } else {
    const Floats x = load_floats<form, whole>(row, d, dim);
    return to_bf16(x.low, x.high);
  }
}

template <RowForm form, bool whole>
void pack_k_form(const PackArgs& a) {
  auto* const tile = static_cast<uint32_t*>(a.tile);
  for (int t = 0; t < a.tokens; t += 16)
    for (int d = 0; d < a.dim_padded; d += 32) {
      __m512 pairs[16];
      for (int i = 0; i < 16; ++i) {
        pairs[i] = _mm512_castsi512_ps(load_bf16_row<form, whole>(a.rows[t + i], d, a.dim));
        ask_for(form, a.next[t + i], d);
      }
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

template <RowForm form, bool whole>
void pack_v_form(const PackArgs& args) {
  auto* tile = static_cast<uint32_t*>(args.tile);
  const int dim = args.dim;
  const int pairs =
      (args.tokens + 31) / 32 * 16;  // AMX reads 32 tokens at a time; the rows past `tokens` are zeros
  for (int pair = 0; pair < pairs; ++pair) {
    const std::byte *even = args.rows[2 * pair], *odd = args.rows[2 * pair + 1];
    for (int d = 0; d < args.dim_padded; d += 32, tile += 32) {
      __m512i low, high;
      if constexpr (form == RowForm::bf16) {
        const __m512i a = load_bf16_row<form, whole>(even, d, dim),
                      b = load_bf16_row<form, whole>(odd, d, dim);
        low = _mm512_inserti64x4(a, _mm512_castsi512_si256(b), 1);
        high = _mm512_shuffle_i64x2(a, b, 0xee);
      } else {
        const Floats a = load_floats<form, whole>(even, d, dim), b = load_floats<form, whole>(odd, d, dim);
        low = to_bf16(a.low, b.low);
        high = to_bf16(a.high, b.high);
      }
      if (args.half) {
        ask_for(form, args.next[pair], d);
      } else {
        ask_for(form, args.next[2 * pair], d);
        ask_for(form, args.next[2 * pair + 1], d);
      }
      _mm512_storeu_si512(tile, interleave(low));
      _mm512_storeu_si512(tile + 16, interleave(high));
    }
  }
}

// Calls f(form, whole) as constants.
template <typename F>
void with_form(RowForm form, bool whole, F&& f) {
  switch (form) {
    case RowForm::f16:
      return whole ? f.template operator()<RowForm::f16, true>()
                   : f.template operator()<RowForm::f16, false>();
    case RowForm::bf16:
      return whole ? f.template operator()<RowForm::bf16, true>()
                   : f.template operator()<RowForm::bf16, false>();
    case RowForm::q8_0: return f.template operator()<RowForm::q8_0, true>();
    case RowForm::f32: return;  // has f32 products
  }
}

void pack_k_bf16(const PackArgs& a) {
  with_form(a.form, a.dim == a.dim_padded,
            [&]<RowForm constant, bool whole>() { pack_k_form<constant, whole>(a); });
}

void pack_v_bf16(const PackArgs& a) {
  with_form(a.form, a.dim == a.dim_padded,
            [&]<RowForm constant, bool whole>() { pack_v_form<constant, whole>(a); });
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
