// bf16 products with AVX512-BF16: each dpbf16 adds two products per lane to a running f32 sum.
#include "backends/cpu/attention_unrolled.h"  // before all others

#include "backends/cpu/attention_bf16_tiles.h"

namespace cairn::cpu {
namespace {

inline __m512 pair_products(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// scores[r][t] = q[r] . k[t], R vectors of the strip from its vector i on.
template <int R>
void score_rows(const StripArgs& a, int i) {
  const auto* q = static_cast<const uint32_t*>(a.q) + i * 16;
  const auto* k = static_cast<const uint32_t*>(a.k);
  __m512 sums[R][4];
  for (auto& row : sums)
    for (auto& s : row) s = _mm512_setzero_ps();
  for (int block = 0; block < a.dim_k / 32; ++block, q += 16 * kStripVectors)
    for (int pair = 0; pair < 16; ++pair, k += kTokens) {
      __m512i keys[4];
      for (int c = 0; c < 4; ++c) keys[c] = _mm512_loadu_si512(k + 16 * c);
      for (int r = 0; r < R; ++r) {
        const __m512i query = _mm512_set1_epi32(int(q[r * 16 + pair]));
        for (int c = 0; c < 4; ++c) sums[r][c] = pair_products(sums[r][c], query, keys[c]);
      }
    }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 4; ++c) _mm512_storeu_ps(a.scores + (i + r) * kTokens + 16 * c, sums[r][c]);
}

// o[r] += sum_t p[r][t] v[t]
template <int R, int C>
void add_values_block(const StripArgs& a, int i, int d) {
  const auto* v = static_cast<const uint32_t*>(a.v) + d;
  const auto* p = reinterpret_cast<const uint32_t*>(a.scores) + i * kTokens;
  float* o = a.o + i * a.dim_v + d;
  __m512 sums[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sums[r][c] = _mm512_loadu_ps(o + r * a.dim_v + 16 * c);
  for (int pair = 0; 2 * pair < a.tokens; ++pair, v += a.dim_v) {
    __m512i values[C];
    for (int c = 0; c < C; ++c) values[c] = _mm512_loadu_si512(v + 16 * c);
    for (int r = 0; r < R; ++r) {
      const __m512i weight = _mm512_set1_epi32(int(p[r * kTokens + pair]));
      for (int c = 0; c < C; ++c) sums[r][c] = pair_products(sums[r][c], weight, values[c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) _mm512_storeu_ps(o + r * a.dim_v + 16 * c, sums[r][c]);
}

template <int R>
void add_values(const StripArgs& a, int i) {
  int d = 0;
  for (; d + 64 <= a.dim_v; d += 64) add_values_block<R, 4>(a, i, d);
  for (; d < a.dim_v; d += 32) add_values_block<R, 2>(a, i, d);
}

void strip(const StripArgs& a) {
  int i = 0;
  for (; i + 4 <= a.vectors; i += 4) score_rows<4>(a, i);
  for (; i < a.vectors; ++i) score_rows<1>(a, i);
  for (i = 0; i < a.vectors; ++i) soften_bf16(a, i);
  for (i = 0; i + 4 <= a.vectors; i += 4) add_values<4>(a, i);
  for (; i < a.vectors; ++i) add_values<1>(a, i);
}

void begin(const StripArgs&) {}
void end() {}

}  // namespace

const TileKernels kAttentionVnni = {32,    2,       pack_q_bf16, pack_k_bf16, pack_v_bf16,
                                    strip, nullptr, nullptr,     begin,       end};

}  // namespace cairn::cpu
