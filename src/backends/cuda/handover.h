// The page-locked room through which a part of a program gets rows from other parts and gives rows to them.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "backends/common/executor.h"
#include "backends/cuda/device.h"
#include "program/program.h"

namespace cairn::cuda {

// How the rows of a step's sequences lie on the device: where each one's first row is. The caller's order is
// that of the sequences.
struct RowOrder {
  std::vector<int64_t> first_row, count;
  bool same = true;  // as the caller's
};

class Handover {
 public:
  Handover() = default;
  Handover(const Device&, const program::Program&, const program::Bounds&);

  // The value's room, in the device's order of rows; valid until another stage uses it.
  std::byte* in(program::Value v) const { return in_.data() + in_at_.at(v.id); }
  std::byte* out(program::Value v) const { return out_.data() + out_at_.at(v.id); }

  // row_bytes: of what the value holds per row of the step.
  void fill_in(program::Value, const std::byte* rows, const RowOrder&, size_t row_bytes) const;
  // Rows in the caller's order: the room itself, or a copy.
  const std::byte* take_out(program::Value, const RowOrder&, size_t row_bytes);

 private:
  PinnedBuffer in_, out_;
  // Each value's offset. Stages reuse the room: what one is handed has been read when the next one is.
  std::map<int32_t, size_t> in_at_, out_at_;
  std::map<int32_t, std::vector<std::byte>> ordered_;
};

}  // namespace cairn::cuda
