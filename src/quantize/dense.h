// Products of dense f32 matrices for calibration and the solvers behind it, on the CPU backend's kernels. All
// matrices are row-major; strides count floats between rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace cairn::quantize {

struct MatrixView {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0, stride = 0;
};

// Which elements of a square result are touched, the diagonal among them.
enum class Triangle : uint8_t { all, lower, upper };

// c[i, j] += factor * sum_k a[i, k] b[j, k]. A thread's rows are computed in one order, whatever the number
// of threads.
void add_product(const MatrixView& a, const MatrixView& b, float factor, float* c, int64_t stride,
                 ThreadPool&, Triangle = Triangle::all);

// sums[i, j] += sum_t x[t, i] x[t, j] for j <= i, [cols, cols]. Where the processor multiplies bf16 much
// faster, x is rounded to it first.
void add_squares(const MatrixView& x, float* sums, ThreadPool&);

// to[j, i] = from[i, j]
std::vector<float> transposed(const MatrixView& from, ThreadPool&);

}  // namespace cairn::quantize
