#include "backends/cuda/handover.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

constexpr int64_t kAlignment = 256;

// f(offset in the caller's rows, in the device's, bytes) for each sequence.
template <typename F>
void each_sequence(const RowOrder& order, size_t row_bytes, F&& f) {
  size_t theirs = 0;
  for (size_t i = 0; i < order.count.size(); ++i) {
    const size_t bytes = size_t(order.count[i]) * row_bytes;
    f(theirs, size_t(order.first_row[i]) * row_bytes, bytes);
    theirs += bytes;
  }
}

}  // namespace

Handover::Handover(const Device& device, const program::Program& program, const program::Bounds& bounds) {
  const auto place = [&](const std::vector<program::Value>& values, std::map<int32_t, size_t>& where) {
    int64_t at = 0;
    for (const auto v : values) {
      where[v.id] = size_t(at);
      at += round_up(bounds.of(program.info(v).shape.front()) * program.width(v) * 4, kAlignment);
    }
    return size_t(at);
  };
  size_t in = 0, out = 0;
  for (const auto& stage : program.stages) {
    in = std::max(in, place(stage.in, in_at_));
    out = std::max(out, place(stage.out, out_at_));
  }
  in_ = PinnedBuffer(device, in);
  out_ = PinnedBuffer(device, out);
}

void Handover::fill_in(program::Value v, const std::byte* rows, const RowOrder& order,
                       size_t row_bytes) const {
  std::byte* const to = in(v);
  each_sequence(order, row_bytes, [&](size_t theirs, size_t ours, size_t bytes) {
    std::memcpy(to + ours, rows + theirs, bytes);
  });
}

const std::byte* Handover::take_out(program::Value v, const RowOrder& order, size_t row_bytes) {
  const std::byte* const from = out(v);
  if (order.same) return from;
  auto& ordered = ordered_[v.id];
  size_t rows = 0;
  for (const int64_t count : order.count) rows += size_t(count);
  ordered.resize(rows * row_bytes);
  each_sequence(order, row_bytes, [&](size_t theirs, size_t ours, size_t bytes) {
    std::memcpy(ordered.data() + theirs, from + ours, bytes);
  });
  return ordered.data();
}

}  // namespace cairn::cuda
