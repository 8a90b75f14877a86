// A weight as the model's files hold it: found, checked, and not yet touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codecs/codec.h"

namespace cairn::codecs {

struct StoredPiece {
  const std::byte* data = nullptr;  // any alignment; the checkpoint keeps it alive
  uint64_t bytes = 0;
  int file = -1;  // which of the checkpoint's mapped files; -1: none, owned memory
};

struct StoredWeight {
  CodecId codec = CodecId::f32;
  int64_t rows = 0, cols = 0;  // of each piece; a 1-D weight is one row
  // Stored [cols, stored_cols]: element (row, col) is number col * stored_cols + first_col + row.
  bool transposed = false;
  int64_t first_col = 0, stored_cols = 0;
  std::vector<StoredPiece> pieces;  // one, or one per expert
};

// The values of a 1-D weight (rows == 1).
std::vector<float> decode_vector(const StoredWeight&);
// One piece of a transposed weight, turned to [rows, cols] f32.
std::vector<float> decode_transposed(const StoredWeight&, size_t piece);

}  // namespace cairn::codecs
