// The tile kernels with f32 products, over a vector type V of the including file: K of a tile is transposed
// to [dim][64 tokens] and V kept as [token][dim], so that both products are broadcasts times whole vectors
// and each score and each output element is one running sum in ascending order, the same for any number of
// rows. Included by files compiled for one instruction set each; the anonymous namespace keeps their code
// apart.
#include <cstring>
#include <limits>

#include "backends/cpu/attention_tiles.h"

namespace cairn::cpu {
namespace {

constexpr int kTokens = 64;

// V::N floats of a stored row from element d on; past `dim` zeros.
template <typename V>
typename V::F load_row(RowForm form, const std::byte* row, int d, int dim) {
  if (form == RowForm::q8_0) {  // whole blocks are stored
    const std::byte* block = row + d / 32 * 34;
    uint16_t scale;
    std::memcpy(&scale, block, sizeof scale);
    return V::mul(V::set(V::f16(scale)), V::load_i8(reinterpret_cast<const int8_t*>(block) + 2 + d % 32));
  }
  const int size = form == RowForm::f32 ? 4 : 2;
  alignas(64) std::byte tail[V::N * 4] = {};
  const std::byte* from = row + d * size;
  if (d + V::N > dim) {
    if (d < dim) std::memcpy(tail, from, size_t((dim - d) * size));
    from = tail;
  }
  if (form == RowForm::f32) return V::load(reinterpret_cast<const float*>(from));
  const auto* halves = reinterpret_cast<const uint16_t*>(from);
  return form == RowForm::f16 ? V::load_f16(halves) : V::load_bf16(halves);
}

template <typename V, RowForm form>
void pack_k_form(const PackArgs& a) {
  auto* const tile = static_cast<float*>(a.tile);
  for (int t = 0; t < a.tokens; t += V::N)
    for (int d = 0; d < a.dim_padded; d += V::N) {
      typename V::F block[V::N];
      for (int i = 0; i < V::N; ++i) {
        block[i] = load_row<V>(form, a.rows[t + i], d, a.dim);
        if (V::N >= 16 || d % 16 == 0) ask_for(form, a.next[t + i], d);
      }
      V::transpose(block);
      for (int i = 0; i < V::N; ++i) V::store(tile + (d + i) * kTokens + t, block[i]);
    }
}

template <typename V, RowForm form>
void pack_v_form(const PackArgs& a) {
  auto* const tile = static_cast<float*>(a.tile);
  for (int t = 0; t < a.tokens; ++t)
    for (int d = 0; d < a.dim_padded; d += V::N) {
      V::store(tile + t * a.dim_padded + d, load_row<V>(form, a.rows[t], d, a.dim));
      if (V::N >= 16 || d % 16 == 0) ask_for(form, a.next[t], d);
    }
}

template <typename V>
void pack_k(const PackArgs& a) {
  switch (a.form) {
    case RowForm::f32: return pack_k_form<V, RowForm::f32>(a);
    case RowForm::f16: return pack_k_form<V, RowForm::f16>(a);
    case RowForm::bf16: return pack_k_form<V, RowForm::bf16>(a);
    case RowForm::q8_0: return pack_k_form<V, RowForm::q8_0>(a);
  }
}

template <typename V>
void pack_v(const PackArgs& a) {
  switch (a.form) {
    case RowForm::f32: return pack_v_form<V, RowForm::f32>(a);
    case RowForm::f16: return pack_v_form<V, RowForm::f16>(a);
    case RowForm::bf16: return pack_v_form<V, RowForm::bf16>(a);
    case RowForm::q8_0: return pack_v_form<V, RowForm::q8_0>(a);
  }
}

void pack_q_f32(const float* const* rows, int dim, int dim_padded, void* strip) {
  auto* out = static_cast<float*>(strip);
  for (int i = 0; i < kStripVectors; ++i, out += dim_padded) {
    std::memset(out, 0, size_t(dim_padded) * 4);
    if (rows[i]) std::memcpy(out, rows[i], size_t(dim) * 4);
  }
}

// 2^x for x <= 0, to 2 ulp (degree-6 polynomial on [-1/2, 1/2]); below -126 it is 0, NaN stays NaN.
template <typename V>
typename V::F exp2_negative(typename V::F x) {
  x = V::max(V::set(-127.0f), x);  // NaN in the second operand is kept
  const auto n = V::round(x);
  const auto f = V::sub(x, n);
  auto p = V::set(1.534584059e-04f);
  p = V::fma(p, f, V::set(1.339993153e-03f));
  p = V::fma(p, f, V::set(9.618488843e-03f));
  p = V::fma(p, f, V::set(5.550328776e-02f));
  p = V::fma(p, f, V::set(2.402264689e-01f));
  p = V::fma(p, f, V::set(6.931472057e-01f));
  p = V::fma(p, f, V::set(1.0f));
  return V::times_power_of_two(p, n);  // exponent -127 is the zero pattern
}

// tanh(x) = sign(x) (1 - u) / (1 + u), u = 2^(-2 log2(e) |x|)
template <typename V>
typename V::F tanh(typename V::F x) {
  const auto u = exp2_negative<V>(V::mul(V::set(-2.885390082f), V::abs(x)));
  const auto one = V::set(1.0f);
  return V::copy_sign(V::div(V::sub(one, u), V::add(one, u)), x);
}

// scores[r][t] = q[r] . k[t] for `vectors` rows and 64 tokens at a time of which `tokens` matter.
template <typename V, int R>
void score_rows(const float* q, const float* k, int dim, int tokens, float* scores) {
  constexpr int C = V::kBlock;
  for (int t = 0; t < tokens; t += C * V::N) {
    typename V::F sums[R][C];
    for (auto& row : sums)
      for (auto& s : row) s = V::set(0);
    for (int d = 0; d < dim; ++d) {
      typename V::F keys[C];
      for (int c = 0; c < C; ++c) keys[c] = V::load(k + d * kTokens + t + c * V::N);
      for (int r = 0; r < R; ++r) {
        const auto query = V::set(q[r * dim + d]);
        for (int c = 0; c < C; ++c) sums[r][c] = V::fma(query, keys[c], sums[r][c]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) V::store(scores + r * kTokens + t + c * V::N, sums[r][c]);
  }
}

// o[r] += sum_t p[r][t] v[t]
template <typename V, int R, int C>
void add_values_block(const float* p, const float* v, int dim, int tokens, float* o) {
  typename V::F sums[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sums[r][c] = V::load(o + r * dim + c * V::N);
  for (int t = 0; t < tokens; ++t) {
    typename V::F values[C];
    for (int c = 0; c < C; ++c) values[c] = V::load(v + t * dim + c * V::N);
    for (int r = 0; r < R; ++r) {
      const auto weight = V::set(p[r * kTokens + t]);
      for (int c = 0; c < C; ++c) sums[r][c] = V::fma(weight, values[c], sums[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) V::store(o + r * dim + c * V::N, sums[r][c]);
}

template <typename V, int R>
void add_values(const float* p, const float* v, int dim, int tokens, float* o) {
  int d = 0;
  for (; d + V::kBlock * V::N <= dim; d += V::kBlock * V::N)
    add_values_block<V, R, V::kBlock>(p, v + d, dim, tokens, o + d);
  for (; d < dim; d += V::N) add_values_block<V, R, 1>(p, v + d, dim, tokens, o + d);
}

// Scores of one vector to probabilities, in place; updates its maximum and sum and scales its output to the
// maximum.
template <typename V>
void soften(const StripArgs& a, int i, float* scores, float* o) {
  using F = typename V::F;
  constexpr int kVectors = kTokens / V::N;
  const int first = a.first[i], last = a.last[i];
  F logits[kVectors];
  F most = V::set(-std::numeric_limits<float>::infinity());
  if (first >= last) {
    for (int c = 0; c < kVectors; ++c) V::store(scores + c * V::N, V::set(0));
    return;
  }
  for (int c = 0; c < kVectors; ++c) {
    F x = V::load(scores + c * V::N);
    if (a.softcap != 0) {
      x = V::mul(tanh<V>(V::mul(x, V::set(a.scale / a.softcap))), V::set(a.softcap * 1.44269504f));
    } else {
      x = V::mul(x, V::set(a.scale_log2));
    }
    if (a.slopes) x = V::fma(V::set(a.slopes[i]), V::add(V::iota(c * V::N), V::set(a.offset[i])), x);
    logits[c] = x;
    most = V::max(most, V::keep(x, c * V::N, first, last, -std::numeric_limits<float>::infinity()));
  }
  const float before = a.m[i], found = V::horizontal_max(most);
  const float now = found > before ? found : before;
  F sum = V::set(0);
  for (int c = 0; c < kVectors; ++c) {
    const F p = V::keep(exp2_negative<V>(V::sub(logits[c], V::set(now))), c * V::N, first, last, 0.0f);
    sum = V::add(sum, p);
    V::store(scores + c * V::N, p);
  }
  float total = V::horizontal_sum(sum);
  if (now > before) {
    const F factor = exp2_negative<V>(V::set(before - now));
    total += V::first(factor) * a.l[i];
    for (int d = 0; d < a.dim_v; d += V::N) V::store(o + d, V::mul(V::load(o + d), factor));
    a.m[i] = now;
  } else {
    total += a.l[i];
  }
  a.l[i] = total;
}

template <typename V>
void strip_f32(const StripArgs& a) {
  const auto* q = static_cast<const float*>(a.q);
  const auto* k = static_cast<const float*>(a.k);
  const auto* v = static_cast<const float*>(a.v);
  int i = 0;
  for (; i + 4 <= a.vectors; i += 4)
    score_rows<V, 4>(q + i * a.dim_k, k, a.dim_k, a.tokens, a.scores + i * kTokens);
  for (; i < a.vectors; ++i) score_rows<V, 1>(q + i * a.dim_k, k, a.dim_k, a.tokens, a.scores + i * kTokens);
  for (i = 0; i < a.vectors; ++i) soften<V>(a, i, a.scores + i * kTokens, a.o + i * a.dim_v);
  for (i = 0; i + 4 <= a.vectors; i += 4)
    add_values<V, 4>(a.scores + i * kTokens, v, a.dim_v, a.tokens, a.o + i * a.dim_v);
  for (; i < a.vectors; ++i)
    add_values<V, 1>(a.scores + i * kTokens, v, a.dim_v, a.tokens, a.o + i * a.dim_v);
}

// One head's vector into the cache. The same bits as codecs' scalar encoders for finite numbers; what is not
// finite stays so in f16 and bf16 and becomes a NaN scale in q8_0, so that a broken activation does not look
// plausible.
template <typename V>
void store_row(RowForm form, const float* x, int dim, std::byte* row) {
  if (form == RowForm::f32) {
    std::memcpy(row, x, size_t(dim) * 4);
    return;
  }
  constexpr int kBlock = 32, kVectors = kBlock / V::N;
  for (int d = 0; d < dim; d += kBlock) {
    const int left = dim - d < kBlock ? dim - d : kBlock;
    float padded[kBlock] = {};
    const float* from = x + d;
    if (left < kBlock) {
      std::memcpy(padded, from, size_t(left) * 4);
      from = padded;
    }
    if (form != RowForm::q8_0) {
      uint16_t halves[kBlock];
      for (int c = 0; c < kBlock; c += V::N) {
        if (form == RowForm::f16) {
          V::store_f16(halves + c, V::load(from + c));
        } else {
          V::store_bf16(halves + c, V::load(from + c));
        }
      }
      std::memcpy(row + d * 2, halves, size_t(left) * 2);
      continue;
    }
    typename V::F most = V::set(0), broken = V::set(0);
    for (int c = 0; c < kVectors; ++c) {
      const auto v = V::load(from + c * V::N);
      most = V::max(most, V::abs(v));
      broken = V::add(broken, V::mul(v, V::set(0)));  // NaN from NaN and infinity
    }
    const float largest = V::horizontal_max(most), sum = V::horizontal_sum(broken), scale = largest / 127.0f;
    const float inverse =
        scale > 0 && 1.0f / scale <= std::numeric_limits<float>::max() ? 1.0f / scale : 0.0f;
    const uint16_t half = sum == 0 ? V::to_f16(scale) : uint16_t{0x7e00};
    std::byte* block = row + d / kBlock * 34;
    std::memcpy(block, &half, sizeof half);
    int8_t q[kBlock];
    for (int c = 0; c < kBlock; c += V::N) {
      // Nearest, halves away from zero, as std::round: the addend is the float below 1/2, then the fraction
      // is cut.
      const auto v = V::mul(V::load(from + c), V::set(inverse));
      V::store_i8(q + c, V::add(v, V::copy_sign(V::set(0x1.fffffep-2f), v)));
    }
    std::memcpy(block + 2, q, kBlock);
  }
}

void nothing(const StripArgs&) {}
void nothing() {}

template <typename V>
constexpr TileKernels kF32Kernels = {V::N,         4,       pack_q_f32, pack_k<V>, pack_v<V>, strip_f32<V>,
                                     store_row<V>, nullptr, nothing,    nothing};

}  // namespace
}  // namespace cairn::cpu
