// Products of the rows that extend answers: 1 to 64 rows a step and more, weights in any form. See
// kernels/matmul_few.cu for the arithmetic, which is the same for every number of rows and every tiling.
#pragma once

#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

// How the kernel divides its work. But for parts it never changes results.
struct FewTiling {
  int row_tiles = 1;    // of 16 rows, per warp
  int token_tiles = 1;  // of 8 rows of x
  int parts = 8;        // of K, each summed apart: few_parts() of the form, or results change
  int k_warps = 8;      // warps of a block side by side along K
  int row_warps = 1;    // and along rows
  int cluster = 1;      // blocks side by side along K; k_warps * cluster is parts, or both are 1
  int stages = 4;       // chunks of weights per warp in shared memory
  int min_blocks = 1;   // per multiprocessor, for the register allocation
  int blocks_per_multiprocessor = 1;  // of the launch, where a block walks over many tiles
  bool one_token = false;
  bool operator==(const FewTiling&) const = default;
};

int few_parts(const Form&);
// The tiling for a product with m rows of x on a device.
FewTiling few_tiling(const Form&, int64_t rows, int64_t cols, int64_t m, bool gated, const DeviceFacts&);
FewTiling few_expert_tiling(const Form&, const DeviceFacts&);
Variant few_variant(const Form&, const FewTiling&, bool gated, bool experts = false);
size_t few_shared_bytes(const Form&, const FewTiling&);

// The variants that products with this matrix need for any number of rows: what to prepare at load.
std::vector<Variant> matmul_few_variants(const Form&, int64_t rows, int64_t cols, bool gated,
                                         const DeviceFacts&);
Variant expert_matmul_few_variant(const Form&, bool gated, const DeviceFacts&);
std::vector<Variant> matmul_few_stock(int capability);

// One product, or up to four that share x, m, add and the form of their weights (add: of the first only).
void matmul_few(KernelCache&, Stream&, const MatMulCall&);
void matmul_few(KernelCache&, Stream&, std::span<const MatMulCall>);
void matmul_few(KernelCache&, Stream&, std::span<const MatMulCall>, const FewTiling&);

// Row i of y is a row of x times the expert chosen[i]'s piece of the weights. Each chosen expert's weights
// are read once for every 8 rows that chose it.
struct ExpertChoice {
  Address chosen = 0;  // i32 [tokens, top_k]
  int64_t top_k = 1;
  bool per_choice = false;  // x has a row per choice, else per token
};
// calls: as above, with m = tokens * top_k rows of y. Throws Error(unsupported) past 4096 rows or 1024
// experts.
void expert_matmul_few(KernelCache&, Stream&, std::span<const MatMulCall>, const ExpertChoice&);

}  // namespace cairn::cuda
