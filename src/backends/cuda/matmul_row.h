// Products of rows that are alone: an engine made for one sequence. Weights whose codes are integers, sums in
// integers; see kernels/matmul_row.cu.
#pragma once

#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

// How the kernel divides its work; never changes results.
struct RowTiling {
  int row_warps = 1;  // tiles of 16 rows of weights side by side in a block
  int stages = 4;     // chunks of weights per warp in shared memory
  int blocks_per_multiprocessor = 2;
  int tokens = 1;  // rows of x at a time: 1, 2 or 4
  bool operator==(const RowTiling&) const = default;
};

// Whether matmul_row multiplies matrices of this form and so many columns.
bool has_matmul_row(const Form&, int64_t cols, const DeviceFacts&);

RowTiling row_tiling(const Form&, int64_t rows, int64_t cols, int64_t m, bool gated, const DeviceFacts&);
size_t row_shared_bytes(const Form&, const RowTiling&, int64_t cols);
Variant row_variant(const Form&, const RowTiling&, bool gated);
// For any m.
std::vector<Variant> matmul_row_variants(const Form&, int64_t rows, int64_t cols, bool gated,
                                         const DeviceFacts&);
std::vector<Variant> matmul_row_stock(int capability);

// One product, or up to four that share x, m, add and the form of their weights (add: of the first only).
// Every four rows of x read the weights anew.
void matmul_row(KernelCache&, Stream&, std::span<const MatMulCall>);
void matmul_row(KernelCache&, Stream&, std::span<const MatMulCall>, const RowTiling&);

}  // namespace cairn::cuda
