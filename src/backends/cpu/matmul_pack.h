// Packing: the same bytes as the file in another order, so that a vector holds one 4-byte (f16: 2-byte) piece
// of each of 16 rows. Shared by all instruction sets, compiled for the baseline: it runs at memory speed as
// it is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"

namespace cairn::cpu {

// A run of bytes of every file block and its place in the packed panel: piece i of row r of block b goes to
// at + b * stride + (i * step * 16 + r) * piece.
struct PackField {
  int from;        // offset in the file block
  int bytes;       // length in the file block, a multiple of piece
  int piece;       // 1, 2 or 4
  int64_t at;      // offset in the panel
  int64_t stride;  // bytes between blocks in the panel
  int step = 1;    // vectors from one piece to the next: other fields lie between them
};

// Packs panels of rows that are `blocks` blocks of block_bytes each. Rows past `rows` are packed as zeros.
void pack_panels(const std::byte* file_rows, int64_t rows, int64_t blocks, int block_bytes,
                 const PackField* fields, int field_count, Range panels, int64_t panel_bytes,
                 std::byte* packed);

}  // namespace cairn::cpu
