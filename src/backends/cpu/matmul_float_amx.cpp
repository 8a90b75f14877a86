// bf16 weights times bf16 left side with AMX tiles: 16 rows x 16 lanes += 16 rows x 32 k times 32 k x 16
// lanes. A panel's 32 steps of k are one tile (1 KiB) as they are packed. The tile unit's own order of sums
// within 32 k differs from other instructions', so every row count goes through it; each row of a tile is
// computed by itself.
//
// One row: a tile product takes a quarter of the time that its weights take to arrive from memory.
// Many rows: 2 x 2 tiles of sums; a piece of k of two panels stays in the first-level cache while 512 rows
// pass, whose piece stays in the second level. Sums wait in scratch (in y, whose rows may lie a power of two
// apart, they would throw each other out of the caches) and are fetched a block ahead. With all of k at once
// the weights would come from the second level too, at which a core makes two thirds of the speed; a product
// of tiles takes 16 cycles, the loop from the first level 18, with the left side from the second 24, with the
// sums' loads and stores 30.
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
constexpr int64_t kBlockBytes = 4 * kTileBytes;  // sums of 32 rows and two panels
constexpr int64_t kPiece = 16;                   // tiles of k: 32 KiB of weights for two panels
constexpr int64_t kRows = 512;                   // pass while those weights stay
// A left side of this size stays in the second-level cache while whole panels pass: no pieces.
constexpr int64_t kStraightBytes = 544 << 10;
constexpr int64_t kGroup = 32;  // panels whose sums wait while the left side's next piece comes

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
  int64_t tiles;               // steps of 32 k
  const std::byte* next_sums;  // of the block after this one, kPiece stretches long
};

// RT x PT tiles of sums. from: null at the first piece of k, else the tiles that wait; to: where they go, RT
// x PT.
template <int RT, int PT>
CAIRN_INLINE inline void tile_block(const Operands& o, const std::byte* from, const Sums (&to)[4],
                                    Prefetch& weights) {
  if (!from) {
    _tile_zero(0);
    if constexpr (PT > 1) _tile_zero(1);
    if constexpr (RT > 1) _tile_zero(2);
    if constexpr (RT > 1 && PT > 1) _tile_zero(3);
  } else {
    load_sum_tile<0>(from, 64);
    if constexpr (PT > 1) load_sum_tile<1>(from + kTileBytes, 64);
    if constexpr (RT > 1) load_sum_tile<2>(from + 2 * kTileBytes, 64);
    if constexpr (RT > 1 && PT > 1) load_sum_tile<3>(from + 3 * kTileBytes, 64);
  }
  const std::byte *a0 = o.a, *a1 = o.a + 16 * o.a_stride, *w0 = o.w, *w1 = o.w + o.panel_bytes;
  const std::byte* next_sums = o.next_sums;
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
    if (next_sums) {
      for (int i = 0; i < kBlockBytes / kPiece; i += 64)
        _mm_prefetch(reinterpret_cast<const char*>(next_sums + i), _MM_HINT_T0);
      next_sums += kBlockBytes / kPiece;
    }
    if constexpr (RT == 1) {
      prefetch_lines<16, 1024>(w0);
      if constexpr (PT > 1) prefetch_lines<16, 1024>(w1);
    }
    weights.step();
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

// waiting: the two panels' blocks of sums, first rows first.
template <int PT>
void panels_times_rows(const MatMulArgs& a, const Piece& piece, int64_t panel, std::byte* waiting,
                       Prefetch& weights) {
  Operands o;
  o.a_stride = act_row_bytes(ActForm::bf16, a.cols);
  o.panel_bytes = float_panel_bytes<TileWeight>(a.cols);
  o.w = a.packed + panel * o.panel_bytes + piece.tile * kTileBytes;
  o.tiles = piece.tiles;
  const auto block = [&](auto RT, int64_t row, int rows0, int rows1) {
    o.a = a.act + size_t(piece.row + row) * o.a_stride + piece.tile * 64;
    std::byte* const wait = waiting + row / 32 * kBlockBytes;
    o.next_sums = piece.straight ? nullptr : wait + kBlockBytes;
    Sums to[4];
    for (int i = 0; i < 4; i++) {
      const int64_t of_panel = panel + i % 2;
      if (piece.straight)
        to[i] = {a.y + (piece.row + row + i / 2 * 16) * a.ldy + of_panel * kPanelRows, a.ldy,
                 i / 2 ? rows1 : rows0, a.n_valid - of_panel * kPanelRows};
      else
        to[i] = {reinterpret_cast<float*>(wait + i * kTileBytes), 16, i / 2 ? rows1 : rows0, kPanelRows};
    }
    tile_block<RT, PT>(o, piece.first ? nullptr : wait, to, weights);
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
  const int64_t blocks = (piece.rows + 31) / 32;
  for (int64_t r = 0; r < piece.rows; r++) {
    float* const to = a.y + (piece.row + r) * a.ldy;
    const std::byte* const from =
        a.scratch + r / 32 * kBlockBytes + r % 32 / 16 * 2 * kTileBytes + r % 16 * 64;
    for (int64_t panel = group; panel < group_end; panel++) {
      const int64_t at = panel - group;
      const __m512 sums = _mm512_load_ps(from + at / 2 * blocks * kBlockBytes + at % 2 * kTileBytes);
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
  const int64_t tiles = ActFloat::padded(a.cols) / 32;
  for (int64_t row = 0; row < a.m; row += kRows) {
    Piece piece;
    piece.row = row;
    piece.rows = a.m - row < kRows ? a.m - row : kRows;
    piece.straight =
        piece.rows <= 32 || piece.rows * int64_t(act_row_bytes(ActForm::bf16, a.cols)) <= kStraightBytes;
    const int64_t length = piece.straight ? tiles : kPiece;
    const int64_t blocks = (piece.rows + 31) / 32;
    for (int64_t group = a.panels.begin; group < a.panels.end; group += kGroup) {
      const int64_t group_end = group + kGroup < a.panels.end ? group + kGroup : a.panels.end;
      for (int64_t t = 0; t < tiles; t += length) {
        piece.tile = t;
        piece.tiles = tiles - t < length ? tiles - t : length;
        piece.first = t == 0;
        piece.last = t + piece.tiles == tiles;
        for (int64_t panel = group; panel < group_end; panel += 2) {
          // Meanwhile the next two panels (or their next piece) arrive in the second-level cache.
          const bool turn = panel + 2 >= group_end;
          const int64_t next_panel = !turn ? panel + 2 : piece.last ? group_end : group;
          const int64_t next_tile = !turn ? t : piece.last ? 0 : t + length;
          Prefetch weights;
          if (piece.rows > 32 && next_panel + 1 < a.panels.end)
            weights = Prefetch(a.packed + next_panel * panel_bytes + next_tile * kTileBytes,
                               piece.tiles * kTileBytes, panel_bytes, 2, blocks * piece.tiles);
          std::byte* const waiting = a.scratch + (panel - group) / 2 * blocks * kBlockBytes;
          if (panel + 1 < group_end)
            panels_times_rows<2>(a, piece, panel, waiting, weights);
          else
            panels_times_rows<1>(a, piece, panel, waiting, weights);
        }
      }
      if (!piece.straight) write_rows(a, piece, group, group_end);
    }
  }
  _tile_release();
}

constexpr MatMulKernel kKernels[] = {{TileWeight::kCodec, Isa::amx, ActForm::bf16,
                                      float_panel_size<TileWeight>, float_pack<TileWeight>, prepare_bf16,
                                      multiply, size_t(kGroup / 2 * (kRows / 32) * kBlockBytes)}};

}  // namespace

const KernelTable kAmxFloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
