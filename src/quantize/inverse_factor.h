// The factor that GPTQ reads errors from: of H = X X^T, the upper triangular U with H^-1 = U^T U.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"

namespace cairn::quantize {

// h: [n, n], symmetric, of which the upper triangle is read; becomes U, with zeros below the diagonal. False
// when H is not positive definite in f32; then what is below the diagonal is as it was.
//
// H = R R^T with R upper triangular (a Cholesky decomposition from the last column to the first), and then U
// = R^-1: the same U as of cholesky(inverse(H)), with one factorisation less and nothing but h itself in
// memory.
bool inverse_factor(std::span<float> h, int64_t n, ThreadPool&);

}  // namespace cairn::quantize
