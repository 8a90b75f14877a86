// bf16 products with AMX: 16 vectors x 16 tokens (or values) x 32 products per instruction. A decode step
// fills only the rows of its group and the unit's time shrinks with them, so one row and many share the same
// arithmetic.
#include "backends/cpu/attention_unrolled.h"  // before all others

#include <initializer_list>

#include "backends/cpu/attention_bf16_tiles.h"

namespace cairn::cpu {
namespace {

// The intrinsics of GCC 12 do not tell the compiler that tiles read memory.
inline void memory_fence() { asm volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0..3 sums, 4 and 5 the strip's vectors (rows of queries or probabilities), 6 and 7 keys or values.
void begin(const StripArgs& a) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = uint8_t(tile < 6 ? a.vectors : 16);
  }
  memory_fence();
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

constexpr int kKeyStride = kTokens * 4, kScoreStride = kTokens * 4;

// Products of all dims for `columns` groups of 16 tokens from token t on.
template <int columns>
void scores(const StripArgs& a, int t) {
  const auto* q = static_cast<const std::byte*>(a.q);
  const auto* k = static_cast<const std::byte*>(a.k) + t * 4;
  _tile_zero(0);
  if constexpr (columns > 1) _tile_zero(1);
  if constexpr (columns > 2) _tile_zero(2);
  if constexpr (columns > 3) _tile_zero(3);
  for (int d = 0; d < a.dim_k; d += 32, q += kStripVectors * 64, k += 16 * kKeyStride) {
    _tile_loadd(4, q, 64);
    _tile_loadd(6, k, kKeyStride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (columns > 1) {
      _tile_loadd(7, k + 64, kKeyStride);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (columns > 2) {
      _tile_loadd(6, k + 128, kKeyStride);
      _tile_dpbf16ps(2, 4, 6);
    }
    if constexpr (columns > 3) {
      _tile_loadd(7, k + 192, kKeyStride);
      _tile_dpbf16ps(3, 4, 7);
    }
  }
  float* out = a.scores + t;
  _tile_stored(0, out, kScoreStride);
  if constexpr (columns > 1) _tile_stored(1, out + 16, kScoreStride);
  if constexpr (columns > 2) _tile_stored(2, out + 32, kScoreStride);
  if constexpr (columns > 3) _tile_stored(3, out + 48, kScoreStride);
}

// o[.., d .. d + 32) += p v over one or two blocks of 32 tokens, whose probabilities are in tiles 4 and 5.
template <bool second_block>
void add_values(const StripArgs& a, int d) {
  const auto* v = static_cast<const uint32_t*>(a.v) + d;
  const int stride = a.dim_v * 4;
  float* o = a.o + d;
  _tile_loadd(0, o, stride);
  _tile_loadd(1, o + 16, stride);
  _tile_loadd(6, v, stride);
  _tile_loadd(7, v + 16, stride);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (second_block) {
    _tile_loadd(6, v + 16 * a.dim_v, stride);
    _tile_loadd(7, v + 16 * a.dim_v + 16, stride);
    _tile_dpbf16ps(0, 5, 6);
    _tile_dpbf16ps(1, 5, 7);
  }
  _tile_stored(0, o, stride);
  _tile_stored(1, o + 16, stride);
}

void strip(const StripArgs& a) {
  memory_fence();
  if (a.tokens > 48) {
    scores<4>(a, 0);
  } else if (a.tokens > 32) {
    scores<3>(a, 0);
  } else if (a.tokens > 16) {
    scores<2>(a, 0);
  } else {
    scores<1>(a, 0);
  }
  memory_fence();
  for (int i = 0; i < a.vectors; ++i) soften_bf16(a, i);
  memory_fence();
  _tile_loadd(4, a.scores, kScoreStride);
  if (a.tokens > 32) {
    _tile_loadd(5, a.scores + 16, kScoreStride);
    for (int d = 0; d < a.dim_v; d += 32) add_values<true>(a, d);
  } else {
    for (int d = 0; d < a.dim_v; d += 32) add_values<false>(a, d);
  }
  memory_fence();
}

// Items of one strip (decode). Here the keys are the first operand, as they lie in the cache, and the queries
// the second: scores come out transposed, and turning the scores of a few vectors is far less work than
// turning the keys. Each score is the same sum of the same products in the same order.
namespace few {

// Four vectors or less have their scores packed as [64 tokens][4]; the keys' rows are then permuted within
// each 16 so that four registers of scores turn into four rows with shuffles inside 128-bit lanes.
int score_columns(int vectors) { return vectors <= 4 ? 4 : 16; }

// Tiles 0 and 1 sums of values, 2 and 3 transposed scores, 4 keys, 5 queries, 6 values, 7 probabilities.
void begin(const StripArgs& a) {
  const auto vectors = uint8_t(a.vectors);
  const auto columns = uint16_t(4 * a.vectors);
  TileConfig config;
  for (const int tile : {0, 1, 7}) config.rows[tile] = vectors, config.row_bytes[tile] = 64;
  for (const int tile : {2, 3, 5}) config.rows[tile] = 16, config.row_bytes[tile] = columns;
  for (const int tile : {4, 6}) config.rows[tile] = 16, config.row_bytes[tile] = 64;
  memory_fence();
  _tile_loadconfig(&config);
}

// [dim / 32][16 pairs of dims][16 vectors]
void pack_q(const float* const* rows, int dim, int dim_padded, void* strip) {
  pack_q_bf16(rows, dim, dim_padded, strip);
  auto* block = static_cast<float*>(strip);  // pairs of bf16, moved as floats
  for (int d = 0; d < dim_padded; d += 32, block += 256) {
    __m512 pairs[16];
    for (int i = 0; i < 16; ++i) pairs[i] = _mm512_loadu_ps(block + 16 * i);
    Avx512::transpose(pairs);
    for (int i = 0; i < 16; ++i) _mm512_storeu_ps(block + 16 * i, pairs[i]);
  }
}

// [64 tokens][dim], each 16 in the order 0, 4, 8, 12, 1, 5, ...
template <RowForm form, bool whole>
void pack_k_form(const PackArgs& a) {
  auto* tile = static_cast<uint16_t*>(a.tile);
  for (int t = 0; t < a.tokens; t += 16)
    for (int i = 0; i < 16; ++i, tile += a.dim_padded) {
      const int token = t + i % 4 * 4 + i / 4;
      for (int d = 0; d < a.dim_padded; d += 32) {
        _mm512_storeu_si512(tile + d, load_bf16_row<form, whole>(a.rows[token], d, a.dim));
        if (i % 2 == 0) ask_for(form, a.next[(t + i) / 2], d);
      }
    }
}

void pack_k(const PackArgs& a) {
  with_form(a.form, a.dim == a.dim_padded,
            [&]<RowForm constant, bool whole>() { pack_k_form<constant, whole>(a); });
}

// [16 tokens as packed][4] to rows of 16 tokens in order.
inline void turn_four(const float* from, float* to) {
  __m512 a[4], b[4], c[4];
  for (int i = 0; i < 4; ++i)
    a[i] = _mm512_loadu_ps(from + 16 * i);  // lane b holds packed row 4 i + b, token 4 b + i
  b[0] = _mm512_unpacklo_ps(a[0], a[1]);
  b[1] = _mm512_unpackhi_ps(a[0], a[1]);
  b[2] = _mm512_unpacklo_ps(a[2], a[3]);
  b[3] = _mm512_unpackhi_ps(a[2], a[3]);
  c[0] = _mm512_shuffle_ps(b[0], b[2], 0x44);
  c[1] = _mm512_shuffle_ps(b[0], b[2], 0xee);
  c[2] = _mm512_shuffle_ps(b[1], b[3], 0x44);
  c[3] = _mm512_shuffle_ps(b[1], b[3], 0xee);
  for (int i = 0; i < 4; ++i) _mm512_storeu_ps(to + i * kTokens, c[i]);
}

inline void turn_sixteen(const float* from, float* to) {
  __m512 rows[16];
  for (int i = 0; i < 16; ++i) rows[i % 4 * 4 + i / 4] = _mm512_loadu_ps(from + 16 * i);
  Avx512::transpose(rows);
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(to + i * kTokens, rows[i]);
}

void scores(const StripArgs& a) {
  const int columns = score_columns(a.vectors), stride = columns * 4, key_stride = a.dim_k * 2;
  memory_fence();
  for (int t = 0; t < a.tokens; t += 32) {
    const auto* q = static_cast<const std::byte*>(a.q);
    const auto* k = static_cast<const std::byte*>(a.k) + t * key_stride;
    const bool both = t + 16 < a.tokens;
    _tile_zero(2);
    _tile_zero(3);
    for (int d = 0; d < a.dim_k; d += 32, q += kStripVectors * 64, k += 64) {
      _tile_loadd(5, q, 64);
      _tile_loadd(4, k, key_stride);
      _tile_dpbf16ps(2, 4, 5);
      for (int i = 0; i < 16; ++i) ask_for(a.form, a.next_k[32 + t / 2 + i], d);
      if (both) {
        _tile_loadd(4, k + 16 * key_stride, key_stride);
        _tile_dpbf16ps(3, 4, 5);
      }
    }
    _tile_stored(2, a.turned + t * columns, stride);
    if (both) _tile_stored(3, a.turned + (t + 16) * columns, stride);
  }
  memory_fence();
}

void strip(const StripArgs& a) {
  const int columns = score_columns(a.vectors);
  for (int t = 0; t < a.tokens; t += 16) {
    if (columns == 4) {
      turn_four(a.turned + t * 4, a.scores + t);
    } else {
      turn_sixteen(a.turned + t * 16, a.scores + t);
    }
  }
  for (int i = 0; i < a.vectors; ++i) soften_bf16(a, i);
  memory_fence();
  const int value_stride = a.dim_v * 4;
  for (int d = 0; d < a.dim_v; d += 32) {
    float* o = a.o + d;
    _tile_loadd(0, o, value_stride);
    _tile_loadd(1, o + 16, value_stride);
    for (int t = 0; t < a.tokens; t += 32) {
      const auto* v = static_cast<const uint32_t*>(a.v) + t / 2 * a.dim_v + d;
      _tile_loadd(7, a.scores + t / 2, kScoreStride);
      _tile_loadd(6, v, value_stride);
      _tile_dpbf16ps(0, 7, 6);
      _tile_loadd(6, v + 16, value_stride);
      _tile_dpbf16ps(1, 7, 6);
      for (int i = 0; i < 16; ++i) ask_for(a.form, a.next_v[32 + t / 2 + i], d);
    }
    _tile_stored(0, o, value_stride);
    _tile_stored(1, o + 16, value_stride);
  }
  memory_fence();
}

}  // namespace few

constexpr FewVectorKernels kFew = {few::pack_q, few::pack_k, few::scores, few::strip, few::begin};

}  // namespace

const TileKernels kAttentionAmx = {32,    2,       pack_q_bf16, pack_k_bf16, pack_v_bf16,
                                   strip, nullptr, &kFew,       begin,       end};

}  // namespace cairn::cpu
