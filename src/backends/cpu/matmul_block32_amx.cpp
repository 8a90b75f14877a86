// Blocks of 32 weights with AMX tiles, for many rows. A block is one tile product of 32 k: exact integers,
// which are then scaled and added in the order of matmul_block32.h. Few rows take the kernel of the level
// below, same bits.
//
// Per 16 rows, panel and block: one tile product (16 cycles) and three vector operations per row (24 cycles);
// four products are on their way while the four before are scaled. Measured below a third of that rate at 512
// rows.
#include "backends/cpu/matmul_block32.h"
#include "backends/cpu/matmul_lanes_avx512.h"
#include "backends/cpu/matmul_tables.h"
#include "backends/cpu/matmul_tiles_amx.h"

namespace cairn::cpu {
namespace {

using S = VnniLanes;

constexpr int64_t kFewRows = 12;
constexpr int64_t kGroup = 16;   // panels whose sums wait in the second-level cache
constexpr int64_t kRows = 512;   // of the left side at a time
constexpr int64_t kBlocks = 16;  // of k at a time

struct TiledPanel {
  alignas(64) std::byte w[kBlocks][512];  // signed bytes, 32 k x 16 lanes
  __m512 scale[kBlocks];
  __m512 minimum[kBlocks];
};

struct Scratch {
  alignas(64) float sums[kGroup][kRows][16];
  TiledPanel weights[kGroup];
  alignas(64) int32_t done[2][4][16][16];
  alignas(64) float dx[kBlocks][16];  // of 16 rows
  alignas(64) float minus_sum_dx[kBlocks][16];
};

template <class C>
void unpack_tiled(const MatMulArgs& a, int64_t panel, size_t panel_bytes, int64_t b0, int64_t blocks,
                  TiledPanel& to) {
  const Packed32<C> from = packed32<C>(a, panel, panel_bytes, b0);
  for (int64_t b = 0; b < blocks; b++) {
    unroll<8>([&](auto j) CAIRN_INLINE {
      __m512i w = from.template w<j>(b);
      if constexpr (C::kSigned)
        w = S::signed_form(w);  // its own inverse
      else if constexpr (C::kOffset != 0)
        w = _mm512_sub_epi8(w, _mm512_set1_epi8(C::kOffset));
      _mm512_store_si512(to.w[b] + 64 * j, w);
    });
    to.scale[b] = from.scale(b);
    if constexpr (C::kHasMin) to.minimum[b] = from.minimum(b);
  }
}

// 16 rows (the last ones may be missing: their sums are not used) times one panel, `blocks` blocks.
template <class C>
CAIRN_INLINE inline void multiply_unit(const TiledPanel& w, const std::byte* x, size_t act_bytes,
                                       int64_t blocks, Scratch& s, float (*sums)[16]) {
  __m512 acc[16];
  unroll<16>([&](auto r) CAIRN_INLINE { acc[r] = S::load_f(sums[r]); });
  for (int64_t b = 0; b < blocks + 4; b += 4) {
    unroll<4>([&](auto i) CAIRN_INLINE {
      if (b + i < blocks) {
        int32_t(*const to)[16] = s.done[b / 4 % 2][i];
        _tile_loadd(6, w.w[b + i], 64);
        _tile_loadd(4, x + (b + i) * 32, act_bytes);
        if constexpr (i == 0) {
          _tile_zero(0);
          _tile_dpbssd(0, 4, 6);
          _tile_stored(0, to, 64);
        } else if constexpr (i == 1) {
          _tile_zero(1);
          _tile_dpbssd(1, 4, 6);
          _tile_stored(1, to, 64);
        } else if constexpr (i == 2) {
          _tile_zero(2);
          _tile_dpbssd(2, 4, 6);
          _tile_stored(2, to, 64);
        } else {
          _tile_zero(3);
          _tile_dpbssd(3, 4, 6);
          _tile_stored(3, to, 64);
        }
      }
      const int64_t before = b + i - 4;
      if (before >= 0 && before < blocks) {
        const int32_t(*const from)[16] = s.done[before / 4 % 2][i];
        const __m512 scale = w.scale[before];
        unroll<16>([&](auto r) CAIRN_INLINE {
          acc[r] =
              S::fma(S::to_float(S::load(from[r])), S::mul_f(scale, S::bcast_f(s.dx[before][r])), acc[r]);
        });
        if constexpr (C::kHasMin) {
          const __m512 minimum = w.minimum[before];
          unroll<16>([&](auto r) CAIRN_INLINE {
            acc[r] = S::fnma(minimum, S::bcast_f(s.minus_sum_dx[before][r]), acc[r]);
          });
        }
      }
    });
  }
  unroll<16>([&](auto r) CAIRN_INLINE { S::store_f(sums[r], acc[r]); });
}

template <class C>
void gather_left(const std::byte* act, size_t act_bytes, int64_t cols, int64_t b0, int64_t blocks,
                 int64_t rows, Scratch& s) {
  for (int64_t r = 0; r < 16; r++) {
    const std::byte* const x = act + size_t(r < rows ? r : rows - 1) * act_bytes;
    for (int64_t b = 0; b < blocks; b++) {
      float dx;
      int32_t minus_sum;
      __builtin_memcpy(&dx, x + ActBlock32::scale_at(cols) + (b0 + b) * 4, 4);
      s.dx[b][r] = dx;
      if constexpr (C::kHasMin) {
        __builtin_memcpy(&minus_sum, x + ActBlock32::sum_at(cols) + (b0 + b) * 4, 4);
        s.minus_sum_dx[b][r] = float(minus_sum) * dx;
      }
    }
  }
}

template <class C>
void multiply_group(const MatMulArgs& a, int64_t first, int64_t last, int64_t row, int64_t rows, Scratch& s) {
  const size_t panel_bytes = block32_panel_bytes<C>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::q8_block32, a.cols);
  const int64_t blocks = a.cols / 32;
  for (int64_t p = 0; p < last - first; p++) __builtin_memset(s.sums[p], 0, size_t(rows + 15) / 16 * 16 * 64);
  for (int64_t b0 = 0; b0 < blocks; b0 += kBlocks) {
    const int64_t count = blocks - b0 < kBlocks ? blocks - b0 : kBlocks;
    for (int64_t p = 0; p < last - first; p++)
      unpack_tiled<C>(a, first + p, panel_bytes, b0, count, s.weights[p]);
    tiles_see_memory();
    int configured = 0;
    for (int64_t r = 0; r < rows; r += 16) {
      const int unit_rows = int(rows - r < 16 ? rows - r : 16);
      if (unit_rows != configured) configure_tiles(unit_rows, unit_rows, 32, 8);
      configured = unit_rows;
      const std::byte* const x = a.act + size_t(row + r) * act_bytes;
      gather_left<C>(x, act_bytes, a.cols, b0, count, unit_rows, s);
      for (int64_t p = 0; p < last - first; p++)
        multiply_unit<C>(s.weights[p], x + b0 * 32, act_bytes, count, s, s.sums[p] + r);
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
    for (size_t i = 0; i < kVnniBlock32Kernels.count; i++)
      if (kVnniBlock32Kernels.kernels[i].codec == C::kCodec)
        return kVnniBlock32Kernels.kernels[i].multiply(a);
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
  return {C::kCodec,       Isa::amx,           ActForm::q8_block32, block32_panel_bytes<C>,
          block32_pack<C>, prepare_block32<S>, multiply<C>,         sizeof(Scratch)};
}

constexpr MatMulKernel kKernels[] = {kernel<Q8_0<S>>(), kernel<Q4_0<S>>(), kernel<Q4_1<S>>(),
                                     kernel<Q5_0<S>>(), kernel<Q5_1<S>>(), kernel<Iq4Nl<S>>(),
                                     kernel<Mxfp4<S>>()};

}  // namespace

const KernelTable kAmxBlock32Kernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
