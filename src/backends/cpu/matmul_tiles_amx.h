// What the AMX kernels share: tile configurations, and the order in which large products walk their operands.
#pragma once

#include <immintrin.h>

#include "backends/cpu/matmul_macros.h"

namespace cairn::cpu {
namespace {

// g++ 12 lets tile loads pass stores to the memory that they read; this orders them.
CAIRN_INLINE inline void tiles_see_memory() { __asm__ volatile("" : : : "memory"); }

// Tile registers of all kernels: 0..3 sums (rows x 16 lanes), 4 and 5 the left side (rows x 64 bytes), 6 and
// 7 weights (b_rows x 64 bytes). Tiles 0, 1, 4 have rows0 rows, tiles 2, 3, 5 have rows1.
inline void configure_tiles(int rows0, int rows1, int a_bytes = 64, int b_rows = 16) {
  alignas(64) uint8_t config[64] = {};
  config[0] = 1;
  const auto tile = [&](int t, int rows, int bytes) {
    config[16 + 2 * t] = uint8_t(bytes);
    config[48 + t] = uint8_t(rows);
  };
  tile(0, rows0, 64);
  tile(1, rows0, 64);
  if (rows1) {
    tile(2, rows1, 64);
    tile(3, rows1, 64);
    tile(5, rows1, a_bytes);
  }
  tile(4, rows0, a_bytes);
  tile(6, b_rows, 64);
  tile(7, b_rows, 64);
  tiles_see_memory();
  _tile_loadconfig(config);
}

// The intrinsics take the tile's number as text.
template <int tile>
CAIRN_INLINE inline void load_sum_tile(const void* at, size_t stride) {
  if constexpr (tile == 0)
    _tile_loadd(0, at, stride);
  else if constexpr (tile == 1)
    _tile_loadd(1, at, stride);
  else if constexpr (tile == 2)
    _tile_loadd(2, at, stride);
  else if constexpr (tile == 3)
    _tile_loadd(3, at, stride);
}
template <int tile>
CAIRN_INLINE inline void store_sum_tile(void* at, size_t stride) {
  if constexpr (tile == 0)
    _tile_stored(0, at, stride);
  else if constexpr (tile == 1)
    _tile_stored(1, at, stride);
  else if constexpr (tile == 2)
    _tile_stored(2, at, stride);
  else if constexpr (tile == 3)
    _tile_stored(3, at, stride);
}

// Fetches `rows` stretches of memory, `pitch` apart, into the second-level cache: a few lines per step of the
// loop that runs meanwhile, all within `steps` steps.
class Prefetch {
 public:
  Prefetch() = default;
  Prefetch(const std::byte* from, int64_t bytes, int64_t pitch, int64_t rows, int64_t steps)
      : at_(from),
        row_end_(from + bytes),
        pitch_(pitch),
        bytes_(bytes),
        rows_(rows),
        lines_((bytes / 64 * rows + steps - 1) / steps) {}
  CAIRN_INLINE void step() {
    for (int64_t i = 0; i < lines_; i++) {
      _mm_prefetch(reinterpret_cast<const char*>(at_), _MM_HINT_T1);
      at_ += 64;
      if (at_ >= row_end_) {
        if (--rows_ <= 0) {
          lines_ = 0;
          return;
        }
        row_end_ += pitch_;
        at_ = row_end_ - bytes_;
      }
    }
  }

 private:
  const std::byte* at_ = nullptr;
  const std::byte* row_end_ = nullptr;
  int64_t pitch_ = 0, bytes_ = 0, rows_ = 0, lines_ = 0;
};

}  // namespace
}  // namespace cairn::cpu
