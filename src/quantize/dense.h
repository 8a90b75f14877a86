// Products of dense f32 matrices for calibration and the solvers behind it, on the CPU backend's kernels. All
// matrices are row-major; strides count floats between rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/symmetric.h"

namespace cairn::quantize {

struct MatrixView {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;
};

// c[i, j] += factor * sum_k a[i, k] b[j, k]. A thread's rows are computed in one order, whatever the number
// of threads.
void add_product(const MatrixView& a, const MatrixView& b, float factor, float* c, int64_t stride,
                 ThreadPool&);
// The same for i <= j only, into the first b.rows rows and columns of c.
void add_product(const MatrixView& a, const MatrixView& b, float factor, SymmetricMatrix& c, ThreadPool&);

// sums[i, j] += sum_t x[t, i] x[t, j]. Where the processor multiplies bf16 much faster, x is rounded to it
// first.
void add_squares(const MatrixView& x, SymmetricMatrix& sums, ThreadPool&);

// to[j, i] = from[i, j]
std::vector<float> transposed(const MatrixView& from, ThreadPool&);

}  // namespace cairn::quantize
