// A weight as the model's files hold it: found, checked, and not yet touched.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "codecs/codec.h"

namespace cairn::codecs {

struct SplitLayout;  // split_weight.h
class Df11Group;     // df11.h

struct StoredPart {
  const std::byte* data = nullptr;  // any alignment; the checkpoint keeps it alive
  uint64_t bytes = 0;
  int file = -1;  // which of the checkpoint's mapped files; -1: none, owned memory
};

struct StoredPiece {
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  int file = -1;
  // Of a split weight: its scales, zeros and column groups, in the order of SplitPart; without data when the
  // layout has none.
  // Of a piece of a group: the codes of its exponents, in whole blocks, and the tables.
  std::array<StoredPart, 3> beside = {};
  int64_t first_element = 0;  // in the group

  uint64_t all_bytes() const;
};

struct StoredWeight {
  CodecId codec = CodecId::f32;
  int64_t rows = 0, cols = 0;  // of each piece; a 1-D weight is one row
  // Stored [cols, stored_cols]: element (row, col) is number col * stored_cols + first_col + row.
  bool transposed = false;
  int64_t first_col = 0, stored_cols = 0;
  std::vector<StoredPiece> pieces;  // one, or one per expert
  // Not null: codes, scales and zeros are tensors of their own and `codec` is what their rows are made into.
  // Then no row lies in memory as its codec says: stored_rows() makes it.
  std::shared_ptr<const SplitLayout> split = {};
  // Not null: the pieces are elements of a group in DFloat11, `data` their signs and mantissas, and `codec`
  // is bf16.
  std::shared_ptr<const Df11Group> group = {};

  // Whether rows lie in memory as the codec says; else stored_rows() makes them.
  bool has_rows() const { return !transposed && !split && !group; }
};

// Rows [first, last) of a piece in the weight's codec: where they lie, or made in `room`. Not for transposed
// weights. Throws Error(invalid_file) naming the tensor for codes and scales that are no numbers.
const std::byte* stored_rows(const StoredWeight&, size_t piece, int64_t first, int64_t last,
                             std::vector<std::byte>& room);

// The values of a 1-D weight (rows == 1).
std::vector<float> decode_vector(const StoredWeight&);
// One piece of a transposed weight, turned to [rows, cols] f32.
std::vector<float> decode_transposed(const StoredWeight&, size_t piece);

}  // namespace cairn::codecs
