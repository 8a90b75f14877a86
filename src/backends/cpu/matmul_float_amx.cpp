// bf16 weights times bf16 left side with AMX tiles: 16 rows x 16 lanes += 16 rows x 32 k times 32 k x 16
// lanes. A panel's 32 steps of k are one tile (1 KiB) as they are packed. The tile unit's own order of sums
// within 32 k differs from other instructions', so every row count goes through it; each row of a tile is
// computed by itself.
//
// One row: a tile product takes a quarter of the time that its weights take to arrive from memory.
// Many rows: 2 x 2 tiles of sums; a piece of k of two panels stays in the first-level cache while all rows
// pass; the rows' piece and the sums of kGroup panels stay in the second level.
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_avx512.h"
#include "backends/cpu/matmul_prepare_bf16.h"
#include "backends/cpu/matmul_tables.h"
#include "backends/cpu/matmul_tiles_amx.h"

namespace cairn::cpu {
namespace {

struct TileWeight {
  using Lanes = VnniLanes;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::bf16;
  static constexpr int kStep = 2, kBytes = 64, kFileElement = 2, kAlign = 32;
};

constexpr int64_t kTileBytes = 1024;
constexpr int64_t kPiece = 16;  // tiles of k: 32 KiB of weights for two panels
constexpr int64_t kGroup = 16;  // panels

struct Place {
  const std::byte* a0;  // left side: rows 0..15 and 16..31 of the block
  const std::byte* a1;
  size_t a_stride;
  const std::byte* w0;  // two panels
  const std::byte* w1;
  float* y;
  int64_t ldy;
  int rows0, rows1;
  int64_t valid0, valid1;  // columns of the two panels, 16 unless n ends
};

template <int tile>
CAIRN_INLINE inline void load_sums(const float* y, int64_t ldy, int rows, int64_t valid) {
  if (valid >= 16) {
    load_sum_tile<tile>(y, size_t(ldy) * 4);
    return;
  }
  alignas(64) float edge[16][16] = {};
  for (int r = 0; r < rows; r++) _mm512_store_ps(edge[r], VnniLanes::load_f(y + r * ldy, valid));
  tiles_see_memory();
  load_sum_tile<tile>(edge, 64);
}

template <int tile>
CAIRN_INLINE inline void store_sums(float* y, int64_t ldy, int rows, int64_t valid) {
  if (valid >= 16) {
    store_sum_tile<tile>(y, size_t(ldy) * 4);
    return;
  }
  alignas(64) float edge[16][16];
  store_sum_tile<tile>(edge, 64);
  tiles_see_memory();
  for (int r = 0; r < rows; r++) VnniLanes::store_f(y + r * ldy, _mm512_load_ps(edge[r]), valid);
}

// RT x PT tiles of sums over `tiles` steps of 32 k.
template <int RT, int PT>
CAIRN_INLINE inline void tile_block(const Place& p, bool first, int64_t tiles, Prefetch& prefetch) {
  if (first) {
    _tile_zero(0);
    if constexpr (PT > 1) _tile_zero(1);
    if constexpr (RT > 1) _tile_zero(2);
    if constexpr (RT > 1 && PT > 1) _tile_zero(3);
  } else {
    load_sums<0>(p.y, p.ldy, p.rows0, p.valid0);
    if constexpr (PT > 1) load_sums<1>(p.y + 16, p.ldy, p.rows0, p.valid1);
    if constexpr (RT > 1) load_sums<2>(p.y + 16 * p.ldy, p.ldy, p.rows1, p.valid0);
    if constexpr (RT > 1 && PT > 1) load_sums<3>(p.y + 16 * p.ldy + 16, p.ldy, p.rows1, p.valid1);
  }
  const std::byte *a0 = p.a0, *a1 = p.a1, *w0 = p.w0, *w1 = p.w1;
  for (int64_t t = 0; t < tiles; t++, a0 += 64, a1 += 64, w0 += kTileBytes, w1 += kTileBytes) {
    _tile_loadd(6, w0, 64);
    _tile_loadd(4, a0, p.a_stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (PT > 1) {
      _tile_loadd(7, w1, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (RT > 1) {
      _tile_loadd(5, a1, p.a_stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (RT > 1 && PT > 1) _tile_dpbf16ps(3, 5, 7);
    prefetch.step();
  }
  store_sums<0>(p.y, p.ldy, p.rows0, p.valid0);
  if constexpr (PT > 1) store_sums<1>(p.y + 16, p.ldy, p.rows0, p.valid1);
  if constexpr (RT > 1) store_sums<2>(p.y + 16 * p.ldy, p.ldy, p.rows1, p.valid0);
  if constexpr (RT > 1 && PT > 1) store_sums<3>(p.y + 16 * p.ldy + 16, p.ldy, p.rows1, p.valid1);
}

template <int PT>
void panels_times_rows(const MatMulArgs& a, int64_t panel, int64_t tile0, int64_t tiles, int64_t panel_bytes,
                       size_t act_bytes, const std::byte* next) {
  Prefetch prefetch(next, next ? PT * tiles * kTileBytes : 0, (a.m + 31) / 32 * tiles);
  Place p;
  p.a_stride = act_bytes;
  p.w0 = a.packed + panel * panel_bytes + tile0 * kTileBytes;
  p.w1 = p.w0 + (PT > 1 ? panel_bytes : 0);
  p.ldy = a.ldy;
  p.valid0 = a.n_valid - panel * kPanelRows;
  p.valid1 = p.valid0 - kPanelRows;
  p.rows0 = p.rows1 = 16;
  const auto go_to = [&](int64_t row) {
    p.a0 = a.act + size_t(row) * act_bytes + tile0 * 64;
    p.a1 = p.a0 + 16 * act_bytes;
    p.y = a.y + row * a.ldy + panel * kPanelRows;
  };
  int64_t row = 0;
  if (a.m >= 32) {
    configure_tiles(16, 16);
    for (; a.m - row >= 32; row += 32) {
      go_to(row);
      tile_block<2, PT>(p, tile0 == 0, tiles, prefetch);
    }
  }
  const auto left = int(a.m - row);
  if (left == 0) return;
  p.rows0 = left < 16 ? left : 16;
  p.rows1 = left - p.rows0;
  if (!(a.m < 32 && panel != a.panels.begin && tile0 == 0)) configure_tiles(p.rows0, p.rows1);
  go_to(row);
  if (p.rows1)
    tile_block<2, PT>(p, tile0 == 0, tiles, prefetch);
  else
    tile_block<1, PT>(p, tile0 == 0, tiles, prefetch);
}

void multiply(const MatMulArgs& a) {
  const int64_t panel_bytes = float_panel_bytes<TileWeight>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::bf16, a.cols);
  const int64_t tiles = ActFloat::padded(a.cols) / 32;
  const int64_t piece = a.m <= 32 ? tiles : kPiece;
  for (int64_t group = a.panels.begin; group < a.panels.end; group += kGroup) {
    const int64_t group_end = group + kGroup < a.panels.end ? group + kGroup : a.panels.end;
    for (int64_t t = 0; t < tiles; t += piece) {
      const int64_t count = tiles - t < piece ? tiles - t : piece;
      for (int64_t panel = group; panel < group_end; panel += 2) {
        // While these panels are multiplied the next two arrive (for few rows the processor's own prefetch
        // does it).
        const std::byte* const next = a.m > 32 && panel + 4 <= a.panels.end
                                          ? a.packed + (panel + 2) * panel_bytes + t * kTileBytes
                                          : nullptr;
        if (panel + 1 < group_end)
          panels_times_rows<2>(a, panel, t, count, panel_bytes, act_bytes, next);
        else
          panels_times_rows<1>(a, panel, t, count, panel_bytes, act_bytes, next);
      }
    }
  }
  _tile_release();
}

constexpr MatMulKernel kKernels[] = {{codecs::CodecId::bf16, Isa::amx, ActForm::bf16,
                                      float_panel_size<TileWeight>, float_pack<TileWeight>, prepare_bf16,
                                      multiply, 0}};

}  // namespace

const KernelTable kAmxFloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
