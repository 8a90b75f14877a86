// The codecs' blocks taken apart: codes as bytes, scales as a device form keeps them. For weights.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codecs/codec.h"

namespace cairn::cuda {

// One row of a device block (weights.h).
struct BlockRow {
  uint8_t codes[256];
  uint8_t scales[32];  // of the sections, section after section
  uint8_t row[4];      // what the chunk's groups share
  int file_bytes;      // consumed
};

// Takes the file's blocks that hold the next cols (at most a chunk) columns of a row; the rest of the row is
// zeros.
void read_block_row(codecs::CodecId, const std::byte* blocks, int cols, BlockRow&);

}  // namespace cairn::cuda
