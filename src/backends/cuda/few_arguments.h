// The arguments of kernels/few_rows.cuh: up to four matrices that share rows of x and the form of their
// weights.
#pragma once

#include <span>

#include "backends/cuda/matmul.h"

namespace cairn::cuda {

constexpr int kMostSegments = 4;

struct FewSegment {
  driver::Address w = 0, up = 0, bias = 0, y = 0;
  int64_t y_stride = 0, piece_bytes = 0;
  int32_t rows = 0, first_group = 0;
};
struct FewArguments {
  FewSegment segments[kMostSegments];
  driver::Address x = 0, add = 0, chosen = 0;
  int64_t cols = 0;
  int32_t m = 0, groups = 0, chunks = 0, segment_count = 0;
  int32_t y_f32 = 0, activation = 0;
  float scale = 1, softcap = 0;
  int32_t x_share = 1, order = 0;  // NextBeside 1, BesidePrevious 2
};
static_assert(sizeof(FewSegment) == 56 && sizeof(FewArguments) == 4 * 56 + 32 + 40);

// Calls that share x, m, the form, up being null or not, and the type of y; only the first may add.
FewArguments few_arguments(std::span<const MatMulCall>);

}  // namespace cairn::cuda
