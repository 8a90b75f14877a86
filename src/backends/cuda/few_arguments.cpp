#include "backends/cuda/few_arguments.h"

#include <cassert>

#include "backends/cuda/weights.h"
#include "base/checked.h"

namespace cairn::cuda {

FewArguments few_arguments(std::span<const MatMulCall> calls) {
  assert(!calls.empty() && calls.size() <= kMostSegments);
  const auto& first = calls.front();
  const DeviceMatrix& w = *first.w;
  const bool gated = first.up != nullptr;
  FewArguments arguments;
  int64_t groups = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& call = calls[i];
    assert(call.x == first.x && call.m == first.m && call.w->cols == w.cols && call.w->form == w.form);
    assert((call.up != nullptr) == gated && (i == 0 || call.add == 0) && call.y_f32 == first.y_f32);
    assert(!gated || (call.up->form == w.form && call.up->rows == call.w->rows && call.up->cols == w.cols));
    FewSegment& s = arguments.segments[i];
    s.w = call.w->data, s.up = gated ? call.up->data : 0;
    s.bias = call.bias, s.y = call.y;
    s.y_stride = call.y_stride ? call.y_stride : call.w->rows;
    s.piece_bytes = int64_t(call.w->piece_bytes);
    s.rows = int32_t(call.w->rows);
    s.first_group = int32_t(groups);
    groups += ceil_div(call.w->rows, 8) * (gated ? 2 : 1);
  }
  arguments.x = first.x, arguments.add = first.add;
  arguments.cols = w.cols;
  arguments.m = int32_t(first.m), arguments.groups = int32_t(groups), arguments.chunks = int32_t(w.chunks());
  arguments.segment_count = int32_t(calls.size());
  arguments.y_f32 = first.y_f32, arguments.activation = int32_t(first.activation);
  arguments.order = (first.next_beside ? 1 : 0) + (first.beside_previous && first.overlap_previous ? 2 : 0);
  arguments.scale = first.scale, arguments.softcap = first.softcap;
  return arguments;
}

}  // namespace cairn::cuda
