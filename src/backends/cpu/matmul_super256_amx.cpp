// Super-blocks of 256 weights with AMX tiles, for many rows. The sub-blocks' integer scales are multiplied
// into the weights while unpacking: scale * weight = 64 * high + low with both in a signed byte, so that a
// tile sum runs over the whole super-block:  total = 64 * sum(high x) + sum(low x), the very integers of
// matmul_super256.h. Then follow the same float operations. Few rows (bound by memory) take the kernel of the
// level below, with the same bits.
//
// Per super-block, 32 rows and a panel: 16 tile products (256 cycles), meanwhile the float work of the unit
// before (5 to 12 vector operations per row). Measured at 512 rows on a busy machine: 800 (q6_k) to 1,000
// cycles (q4_k), so the two do not overlap as they should.
#include "backends/cpu/matmul_lanes_avx512.h"
#include "backends/cpu/matmul_super256.h"
#include "backends/cpu/matmul_tables.h"
#include "backends/cpu/matmul_tiles_amx.h"

namespace cairn::cpu {
namespace {

using S = VnniLanes;

constexpr int64_t kFewRows = 12;   // below: the level below is at least as fast
constexpr int64_t kGroup = 16;     // panels whose sums wait in the second-level cache
constexpr int64_t kRows = 512;     // of the left side at a time
constexpr int64_t kTogether = 64;  // rows that stay in the first-level cache while the group's panels pass

struct TiledSuper {
  alignas(64) std::byte high[4][1024];  // 64 k x 16 lanes each
  alignas(64) std::byte low[4][1024];
  __m512i pair[8];
  __m512 d, d_min;
};

struct Scratch {
  alignas(64) float sums[kGroup][kRows][16];
  TiledSuper weights[kGroup];
  alignas(64) int32_t done[2][4][16][16];  // integer sums of two units: high and low of two row tiles
  alignas(64) float dx[kTogether];
  alignas(64) int32_t xsum[kTogether][8];
};

// Bytes w (as the format's w<> gives them) times a scale per lane.
template <class C>
CAIRN_INLINE inline void scaled_bytes(__m512i w, __m512i scale, std::byte* high, std::byte* low) {
  const __m512i both = S::pair(scale, scale);
  __m512i even, odd;
  if constexpr (C::kSigned) {
    w = S::signed_form(w);  // back to signed bytes: its own inverse
    even = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);
    odd = _mm512_srai_epi16(w, 8);
  } else {
    even = _mm512_and_si512(w, _mm512_set1_epi16(0xff));
    odd = _mm512_srli_epi16(w, 8);
    if constexpr (C::kOffset != 0) {
      even = _mm512_sub_epi16(even, _mm512_set1_epi16(C::kOffset));
      odd = _mm512_sub_epi16(odd, _mm512_set1_epi16(C::kOffset));
    }
  }
  even = _mm512_mullo_epi16(even, both);
  odd = _mm512_mullo_epi16(odd, both);
  constexpr __mmask64 kOdd = 0xaaaaaaaaaaaaaaaau;
  const __m512i bytes = _mm512_mask_blend_epi8(kOdd, even, _mm512_slli_epi16(odd, 8));
  _mm512_store_si512(low, _mm512_and_si512(bytes, _mm512_set1_epi8(63)));
  _mm512_store_si512(high, _mm512_mask_blend_epi8(kOdd, _mm512_srai_epi16(even, 6),
                                                  _mm512_slli_epi16(_mm512_srai_epi16(odd, 6), 8)));
}

template <class C>
void unpack_tiled(const MatMulArgs& a, int64_t panel, size_t panel_bytes, int64_t b, TiledSuper& to) {
  PackedSuper<C> from;
  enter_panel<C>(a, panel, panel_bytes, b, from);
  from.enter(0);
  constexpr int kVectors = 64 / C::kSubs;
  unroll<C::kSubs>([&](auto s) CAIRN_INLINE {
    unroll<kVectors>([&](auto j) CAIRN_INLINE {
      constexpr int at = s * kVectors + j;
      scaled_bytes<C>(from.w(s, j), from.scale(s), to.high[0] + 64 * at, to.low[0] + 64 * at);
    });
  });
  if constexpr (C::kHasMin) {
    for (int i = 0; i < C::kPairs; i++) to.pair[i] = from.pair(i);
    to.d_min = from.d_min();
  }
  to.d = from.d();
}

// One row of a finished unit.
template <class C>
CAIRN_INLINE inline void finish_row(const TiledSuper& w, const int32_t* high, const int32_t* low, float dx,
                                    const int32_t* xsum, float* sums) {
  const __m512i total = S::add(S::shl32<6>(S::load(high)), S::load(low));
  const __m512 dxs = S::bcast_f(dx);
  __m512 acc = S::fma(S::to_float(total), S::mul_f(w.d, dxs), S::load_f(sums));
  if constexpr (C::kHasMin) {
    __m512i minima = S::zero();
    unroll<C::kPairs>([&](auto i) CAIRN_INLINE { minima = S::dp16(minima, w.pair[i], S::bcast(xsum[i])); });
    acc = S::fnma(S::to_float(minima), S::mul_f(w.d_min, dxs), acc);
  }
  S::store_f(sums, acc);
}

// A unit: up to 32 rows times one panel.
struct Unit {
  const TiledSuper* weights = nullptr;
  const int32_t (*done)[16][16] = nullptr;
  const float* dx = nullptr;
  const int32_t (*xsum)[8] = nullptr;
  float (*sums)[16] = nullptr;
  int rows = 0;
};

template <class C>
CAIRN_INLINE inline void finish_rows(const Unit& u, int begin, int end) {
  for (int r = begin; r < end && r < u.rows; r++)
    finish_row<C>(*u.weights, u.done[r / 16 * 2][r % 16], u.done[r / 16 * 2 + 1][r % 16], u.dx[r], u.xsum[r],
                  u.sums[r]);
}

// Multiplies a unit's tiles while the unit before is finished.
template <class C, bool kTwo>
CAIRN_INLINE inline void multiply_unit(const TiledSuper& w, const std::byte* x, size_t act_bytes,
                                       int32_t (*done)[16][16], const Unit& before) {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kTwo) {
    _tile_zero(2);
    _tile_zero(3);
  }
  unroll<4>([&](auto step) CAIRN_INLINE {
    _tile_loadd(6, w.high[step], 64);
    _tile_loadd(4, x + 64 * step, act_bytes);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, w.low[step], 64);
    _tile_dpbssd(1, 4, 7);
    if constexpr (kTwo) {
      _tile_loadd(5, x + 16 * act_bytes + 64 * step, act_bytes);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    finish_rows<C>(before, 8 * step, 8 * step + 8);
  });
  _tile_stored(0, done[0], 64);
  _tile_stored(1, done[1], 64);
  if constexpr (kTwo) {
    _tile_stored(2, done[2], 64);
    _tile_stored(3, done[3], 64);
  }
}

// Scales and sums of the left side's super-block b, row after row.
template <class C>
void gather_left(const std::byte* act, size_t act_bytes, int64_t cols, int64_t b, int64_t rows, Scratch& s) {
  for (int64_t r = 0; r < rows; r++) {
    const std::byte* const x = act + size_t(r) * act_bytes;
    __builtin_memcpy(&s.dx[r], x + ActBlock256::scale_at(cols) + b * 4, 4);
    if constexpr (C::kHasMin)
      __builtin_memcpy(s.xsum[r],
                       x + ActBlock256::sum_at(cols) + b * ActBlock256::kSumBytes + (C::kPairs == 8 ? 0 : 32),
                       C::kPairs * 4);
  }
}

// Panels [first, last) times rows [row, row + rows): sums gathers all super-blocks.
template <class C>
void multiply_group(const MatMulArgs& a, int64_t first, int64_t last, int64_t row, int64_t rows, Scratch& s) {
  const size_t panel_bytes = super256_panel_bytes<C>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::q8_block256, a.cols);
  const int64_t blocks = a.cols / 256;
  for (int64_t p = 0; p < last - first; p++) __builtin_memset(s.sums[p], 0, size_t(rows) * 64);
  for (int64_t b = 0; b < blocks; b++) {
    for (int64_t p = 0; p < last - first; p++) unpack_tiled<C>(a, first + p, panel_bytes, b, s.weights[p]);
    tiles_see_memory();
    for (int64_t r = 0; r < rows; r += kTogether) {
      const int64_t together = rows - r < kTogether ? rows - r : kTogether;
      const std::byte* const x = a.act + size_t(row + r) * act_bytes;
      gather_left<C>(x, act_bytes, a.cols, b, together, s);
      Unit before;
      int turn = 0;
      int configured = 0;
      for (int64_t p = 0; p < last - first; p++) {
        for (int64_t i = 0; i < together; i += 32) {
          const int unit_rows = int(together - i < 32 ? together - i : 32);
          if (unit_rows != configured) {
            configure_tiles(unit_rows < 16 ? unit_rows : 16, unit_rows > 16 ? unit_rows - 16 : 0);
            configured = unit_rows;
          }
          const std::byte* const from = x + size_t(i) * act_bytes + b * 256;
          if (unit_rows > 16)
            multiply_unit<C, true>(s.weights[p], from, act_bytes, s.done[turn], before);
          else
            multiply_unit<C, false>(s.weights[p], from, act_bytes, s.done[turn], before);
          tiles_see_memory();
          before = {&s.weights[p], s.done[turn], s.dx + i, s.xsum + i, s.sums[p] + r + i, unit_rows};
          turn ^= 1;
        }
      }
      finish_rows<C>(before, 0, 32);
    }
  }
  // Whole rows at a time: y's rows lie pages apart.
  for (int64_t r = 0; r < rows; r++) {
    float* const to = a.y + (row + r) * a.ldy + first * kPanelRows;
    for (int64_t p = 0; p < last - first; p++) {
      const int64_t valid = a.n_valid - (first + p) * kPanelRows;
      if (valid >= kPanelRows)
        S::store_f(to + p * kPanelRows, S::load_f(s.sums[p][r]));
      else
        S::store_f(to + p * kPanelRows, S::load_f(s.sums[p][r]), valid);
    }
  }
}

template <class C>
void multiply(const MatMulArgs& a) {
  if (a.m < kFewRows) {
    for (size_t i = 0; i < kVnniSuper256Kernels.count; i++)
      if (kVnniSuper256Kernels.kernels[i].codec == C::kCodec)
        return kVnniSuper256Kernels.kernels[i].multiply(a);
    __builtin_unreachable();
  }
  Scratch& s = *reinterpret_cast<Scratch*>(a.scratch);
  for (int64_t row = 0; row < a.m; row += kRows) {
    const int64_t rows = a.m - row < kRows ? a.m - row : kRows;
    for (int64_t group = a.panels.begin; group < a.panels.end; group += kGroup)
      multiply_group<C>(a, group, group + kGroup < a.panels.end ? group + kGroup : a.panels.end, row, rows,
                        s);
  }
  _tile_release();
}

template <class C>
constexpr MatMulKernel kernel() {
  return {C::kCodec,           Isa::amx,    ActForm::q8_block256, super256_panel_bytes<C>, super256_pack<C>,
          prepare_block256<S>, multiply<C>, sizeof(Scratch)};
}

constexpr MatMulKernel kKernels[] = {kernel<Q2_K<S>>(), kernel<Q3_K<S>>(), kernel<Q4_K<S>>(),
                                     kernel<Q5_K<S>>(), kernel<Q6_K<S>>(), kernel<Iq4Xs<S>>(),
                                     kernel<Tq2_0<S>>()};

}  // namespace

const KernelTable kAmxSuper256Kernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
