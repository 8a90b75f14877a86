// The row-wise arithmetic between matrix products, on f32 rows: norms, activations, sums, rotary positions.
// Bound: memory, 4 bytes per element and operand. Each row depends on itself only and is summed in a fixed
// order, so results do not depend on threads or batch. One source (row_kernels_body.h) is compiled per
// instruction set; row_kernels_reference in the test is the definition in double.
#pragma once

#include <cstdint>

#include "base/cpu_features.h"
#include "program/activation.h"
#include "program/rope.h"

namespace cairn::cpu {

struct RowKernels {
  // y[i] = x[i] / sqrt(mean(x^2) + eps) * (offset + weight[i]); weight may be null (ones, offset ignored)
  void (*rms_norm)(const float* x, const float* weight, float eps, float offset, int64_t n, float* y);
  // weight and bias may be null
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y);
  void (*add)(const float* a, const float* b, float b_scale, int64_t n, float* y);
  void (*clamp)(const float* x, float limit, int64_t n, float* y);
  void (*scale)(const float* x, float factor, int64_t n, float* y);
  void (*soft_cap)(const float* x, float scale, float cap, int64_t n, float* y);
  void (*activate)(program::Activation, const float* x, int64_t n, float* y);
  void (*gated)(program::Activation, const float* gate, const float* up, int64_t n, float* y);
  // heads * head_dim elements; cosine and sine have rotary_dim / 2 entries
  void (*rope)(const float* x, const float* cosine, const float* sine, int64_t heads, int64_t head_dim,
               int64_t rotary_dim, program::RopePairing, float* y);
  // y += x * factor
  void (*multiply_add)(const float* x, float factor, int64_t n, float* y);
};

const RowKernels& row_kernels(Isa);

}  // namespace cairn::cpu
