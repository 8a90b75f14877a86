// One product of rows with a weight, as the executor hands it to the kernels: matmul_few (rows that extend
// answers) and matmul_many (rows of prompts).
//
//   v[t, n] = scale * sum_k x[t, k] w[n, k] + bias[n]     x bf16, sums f32 in the order of k
//   v       = softcap * tanh(v / softcap)                 when softcap != 0
//   v[t, n] = act(v[t, n]) * sum_k x[t, k] up[n, k]       when up is set (gated: bias, scale, softcap unused)
//   y[t, n] = add[t, n] + v[t, n]                         add when set
//
// The bits of row t depend on row t of x (and add) and on the class only: not on m, not on the other rows.
#pragma once

#include <cstdint>

#include "backends/common/executor.h"
#include "backends/cuda/driver.h"
#include "program/activation.h"

namespace cairn::cuda {

struct DeviceMatrix;  // weights.h: a weight [n, k] in device memory with its codec

using backends::RowClass;

struct MatMulCall {
  const DeviceMatrix* w = nullptr;  // [n, k]
  driver::Address x = 0;            // bf16 [m, k], rows contiguous, 16-byte aligned
  int64_t m = 0;
  driver::Address y = 0;  // bf16 or f32 [m, n], row t at y + t * y_stride
  bool y_f32 = false;
  driver::Address bias = 0;  // f32 [n], or 0
  driver::Address add = 0;   // f32 [m, n] with rows at y_stride, or 0; may be y itself (then y is f32)
  int64_t y_stride = 0;      // elements; 0: n
  const DeviceMatrix* up = nullptr;  // [n, k]: gated form with w as the gate, or null
  program::Activation activation =
      program::Activation::identity;  // of the gated form, or of v when up is null
  float scale = 1;
  float softcap = 0;
  bool alone = false;             // rows of an engine that is made for one sequence: matmul_row if it can
  bool overlap_previous = false;  // programmatic dependent launch (LaunchShape)
  // The launch after this one has the same x, y of its own, and need not wait for it; beside_previous is that
  // launch (with overlap_previous). Of few rows.
  bool next_beside = false, beside_previous = false;
};

}  // namespace cairn::cuda
