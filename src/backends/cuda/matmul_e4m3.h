// Products of rows of prompts with e4m3 weights as published checkpoints scale them, in e4m3 on both sides.
//
//   x[t, k] ~ r[t] * c[t, k]     c = x / r rounded to e4m3, r[t] = max |x[t]| / 448: quantised anew each time
//   y[t, n] = r[t] * s[n] * sum_k c[t, k] q[n, k]                             one scale a row, or a tensor
//   y[t, n] = r[t] * sum_b s[n / 128, b] * sum_{k in b} c[t, k] q[n, k]       one for 128 x 128
//
// Sums are the matrix units', which keep 13 bits behind the largest of 32 products and the sum so far; with
// scales for 128 x 128 they are of 128 products and added in f32. What a code of x loses is up to 2^-4 of the
// element (three bits of mantissa), for elements below 2^-14 of the row's largest up to 2^-18 of that; the
// weights are exact. A row's codes depend on the row only. Rows that extend answers (matmul_few) stay bf16
// times e4m3.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

// Where the rows' codes lie: one object serves all products of a stream, in order.
struct QuantizedRows {
  Address data = 0;  // quantized_bytes(), on 256
};
uint64_t quantized_bytes(int64_t rows, int64_t k);

// Whether this device multiplies the call's weights so; else they go the way of every form.
bool multiplies_e4m3(const DeviceFacts&, const MatMulCall&);

// Calls that share x and m; up to three with a scale per row go together, as q, k and v do.
void matmul_e4m3(KernelCache&, Stream&, std::span<const MatMulCall>, const QuantizedRows&);

std::vector<Variant> matmul_e4m3_variants(const DeviceFacts&, std::span<const MatMulCall>);

}  // namespace cairn::cuda
