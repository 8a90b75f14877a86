// The factor that GPTQ reads errors from: of H = X X^T, the upper triangular U with H^-1 = U^T U.
#pragma once

#include "base/thread_pool.h"
#include "quantize/symmetric.h"

namespace cairn::quantize {

// h becomes U, with zeros below the diagonal of its strips. False when H is not positive definite in f32;
// then h is as it was but for what it takes to multiply the factors of its last columns again: 1e-6 of the
// diagonal.
//
// H = R R^T with R upper triangular (a Cholesky decomposition from the last column to the first), and then U
// = R^-1: the same U as of cholesky(inverse(H)), with one factorisation less and nothing but h itself in
// memory.
bool inverse_factor(SymmetricMatrix& h, ThreadPool&);

}  // namespace cairn::quantize
