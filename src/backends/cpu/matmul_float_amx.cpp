// bf16 weights times bf16 left side with AMX tiles: 16 rows x 16 lanes += 16 rows x 32 k times 32 k x 16
// lanes. A panel's 32 steps of k are one tile (1 KiB) as they are packed. The tile unit's own order of sums
// within 32 k differs from other instructions', so every row count goes through it; each row of a tile is
// computed by itself.
//
// One row: a tile product takes a quarter of the time that its weights take to arrive from memory.
// Many rows: 2 x 2 tiles of sums; a piece of k of two panels stays in the first-level cache while all rows
// pass, and sums wait in scratch (in y, whose rows may lie a power of two apart, they would throw each other
// out of the caches).
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
// Where kResidentRows of the left side fit in half of a 2 MiB second-level cache, they stay there while all
// panels pass, kResidentGroup at a time. Else kRows rows pass piece by piece, and the sums of kGroup panels
// stay.
constexpr int64_t kResidentRows = 256, kResidentBytes = 1100 << 10, kResidentGroup = 8;
constexpr int64_t kRows = 512, kGroup = 32;
constexpr int64_t kRowTiles = kRows / 16;

// Where a tile of sums waits or goes: in scratch as a whole tile, or in y with its last columns cut.
struct Sums {
  float* at;
  int64_t ld;
  int rows;
  int64_t valid;  // columns
};

template <int tile>
CAIRN_INLINE inline void store_result(const Sums& s) {
  if (s.valid >= kPanelRows) {
    store_sum_tile<tile>(s.at, size_t(s.ld) * 4);
    return;
  }
  alignas(64) float edge[16][16];
  store_sum_tile<tile>(edge, 64);
  tiles_see_memory();
  for (int r = 0; r < s.rows; r++) VnniLanes::store_f(s.at + r * s.ld, _mm512_load_ps(edge[r]), s.valid);
}

struct Operands {
  const std::byte* a;  // left side: 16 rows, and the next 16
  size_t a_stride;
  const std::byte* w;  // two panels
  int64_t panel_bytes;
  int64_t tiles;  // steps of 32 k
};

// RT x PT tiles of sums. from: null at the first piece of k, else the tiles that wait; to: where they go, RT
// x PT.
template <int RT, int PT>
CAIRN_INLINE inline void tile_block(const Operands& o, const std::byte* const (&from)[4], const Sums (&to)[4],
                                    Prefetch& weights, Prefetch& rows) {
  if (!from[0]) {
    _tile_zero(0);
    if constexpr (PT > 1) _tile_zero(1);
    if constexpr (RT > 1) _tile_zero(2);
    if constexpr (RT > 1 && PT > 1) _tile_zero(3);
  } else {
    load_sum_tile<0>(from[0], 64);
    if constexpr (PT > 1) load_sum_tile<1>(from[1], 64);
    if constexpr (RT > 1) load_sum_tile<2>(from[2], 64);
    if constexpr (RT > 1 && PT > 1) load_sum_tile<3>(from[3], 64);
  }
  const std::byte *a0 = o.a, *a1 = o.a + 16 * o.a_stride, *w0 = o.w, *w1 = o.w + o.panel_bytes;
  for (int64_t t = 0; t < o.tiles; t++, a0 += 64, a1 += 64, w0 += kTileBytes, w1 += kTileBytes) {
    _tile_loadd(6, w0, 64);
    _tile_loadd(4, a0, o.a_stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (PT > 1) {
      _tile_loadd(7, w1, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (RT > 1) {
      _tile_loadd(5, a1, o.a_stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (RT > 1 && PT > 1) _tile_dpbf16ps(3, 5, 7);
    weights.step();
    rows.step();
  }
  store_result<0>(to[0]);
  if constexpr (PT > 1) store_result<1>(to[1]);
  if constexpr (RT > 1) store_result<2>(to[2]);
  if constexpr (RT > 1 && PT > 1) store_result<3>(to[3]);
}

struct Piece {
  int64_t row, rows;    // of the left side
  int64_t tile, tiles;  // of k
  bool first, last;
  bool straight;  // to y: one piece, few rows
};

template <int PT>
void panels_times_rows(const MatMulArgs& a, const Piece& piece, int64_t panel, std::byte* waiting,
                       Prefetch& weights, Prefetch& left_rows) {
  Operands o;
  o.a_stride = act_row_bytes(ActForm::bf16, a.cols);
  o.panel_bytes = float_panel_bytes<TileWeight>(a.cols);
  o.w = a.packed + panel * o.panel_bytes + piece.tile * kTileBytes;
  o.tiles = piece.tiles;
  const auto block = [&](auto RT, int64_t row, int rows0, int rows1) {
    o.a = a.act + size_t(piece.row + row) * o.a_stride + piece.tile * 64;
    const std::byte* from[4];
    Sums to[4];
    for (int i = 0; i < 4; i++) {
      const int64_t tile_row = row / 16 + i / 2, tile_panel = i % 2;
      std::byte* const wait = waiting + (tile_panel * kRowTiles + tile_row) * kTileBytes;
      from[i] = piece.first ? nullptr : wait;
      if (piece.straight)
        to[i] = {a.y + (piece.row + row + i / 2 * 16) * a.ldy + (panel + tile_panel) * kPanelRows, a.ldy,
                 i / 2 ? rows1 : rows0, a.n_valid - (panel + tile_panel) * kPanelRows};
      else
        to[i] = {reinterpret_cast<float*>(wait), 16, i / 2 ? rows1 : rows0, kPanelRows};
    }
    tile_block<RT, PT>(o, from, to, weights, left_rows);
  };
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  int64_t row = 0;
  if (piece.rows >= 32) {
    configure_tiles(16, 16);
    for (; piece.rows - row >= 32; row += 32) block(Two(), row, 16, 16);
  }
  const auto left = int(piece.rows - row);
  if (left > 16) {
    configure_tiles(16, left - 16);
    block(Two(), row, 16, left - 16);
  } else if (left > 0) {
    configure_tiles(left, 0);
    block(One(), row, left, 0);
  }
}

// From the tiles that wait in scratch to y, whole rows at a time: y's rows lie pages apart.
void write_rows(const MatMulArgs& a, const Piece& piece, int64_t group, int64_t group_end) {
  tiles_see_memory();
  for (int64_t r = 0; r < piece.rows; r++) {
    float* const to = a.y + (piece.row + r) * a.ldy;
    for (int64_t panel = group; panel < group_end; panel++) {
      const std::byte* const tile =
          a.scratch + ((panel - group) * kRowTiles + r / 16) * kTileBytes + r % 16 * 64;
      const __m512 sums = _mm512_load_ps(tile);
      const int64_t valid = a.n_valid - panel * kPanelRows;
      if (valid >= kPanelRows)
        VnniLanes::store_f(to + panel * kPanelRows, sums);
      else
        VnniLanes::store_f(to + panel * kPanelRows, sums, valid);
    }
  }
}

void multiply(const MatMulArgs& a) {
  const int64_t panel_bytes = float_panel_bytes<TileWeight>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::bf16, a.cols);
  const int64_t tiles = ActFloat::padded(a.cols) / 32;
  const bool resident = kResidentRows * int64_t(act_bytes) <= kResidentBytes;
  const int64_t most_rows = resident ? kResidentRows : kRows;
  const int64_t most_panels = resident ? kResidentGroup : kGroup;
  for (int64_t row = 0; row < a.m; row += most_rows) {
    Piece piece;
    piece.row = row;
    piece.rows = a.m - row < most_rows ? a.m - row : most_rows;
    const int64_t length = piece.rows <= 32 ? tiles : kPiece;
    const int64_t blocks = (piece.rows + 31) / 32;
    piece.straight = piece.rows <= 32;
    for (int64_t group = a.panels.begin; group < a.panels.end; group += most_panels) {
      const int64_t group_end = group + most_panels < a.panels.end ? group + most_panels : a.panels.end;
      for (int64_t t = 0; t < tiles; t += length) {
        piece.tile = t;
        piece.tiles = tiles - t < length ? tiles - t : length;
        piece.first = t == 0;
        piece.last = t + piece.tiles == tiles;
        // Meanwhile what comes next arrives in the second-level cache: the left side's next piece ...
        const int64_t next_tile = piece.last ? 0 : t + length;
        Prefetch left_rows;
        if (!resident && piece.rows > 32)
          left_rows =
              Prefetch(a.act + size_t(row) * act_bytes + next_tile * 64, piece.tiles * 64, int64_t(act_bytes),
                       piece.rows, (group_end - group + 1) / 2 * blocks * piece.tiles);
        for (int64_t panel = group; panel < group_end; panel += 2) {
          // ... and the next two panels' (or their next piece).
          const bool turn = panel + 2 >= group_end;
          const int64_t next_panel = !turn ? panel + 2 : piece.last ? group_end : group;
          Prefetch weights;
          if (piece.rows > 32 && next_panel + 1 < a.panels.end)
            weights = Prefetch(a.packed + next_panel * panel_bytes + (turn ? next_tile : t) * kTileBytes,
                               piece.tiles * kTileBytes, panel_bytes, 2, blocks * piece.tiles);
          std::byte* const waiting = a.scratch + (panel - group) * kRowTiles * kTileBytes;
          if (panel + 1 < group_end)
            panels_times_rows<2>(a, piece, panel, waiting, weights, left_rows);
          else
            panels_times_rows<1>(a, piece, panel, waiting, weights, left_rows);
        }
      }
      if (!piece.straight) write_rows(a, piece, group, group_end);
    }
  }
  _tile_release();
}

constexpr MatMulKernel kKernels[] = {{TileWeight::kCodec, Isa::amx, ActForm::bf16,
                                      float_panel_size<TileWeight>, float_pack<TileWeight>, prepare_bf16,
                                      multiply, size_t(kGroup* kRowTiles* kTileBytes)}};

}  // namespace

const KernelTable kAmxFloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
