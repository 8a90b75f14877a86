// Products of the rows that extend answers with weights in blocks, on Hopper's warpgroup products
// (kernels/matmul_few_sm90.cu). Chosen by matmul_few() for a shape of the weight, whatever the number of
// rows.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

// How the kernel divides its work. Only `cluster` changes results.
struct WarpgroupTiling {
  int token_tiles = 1;  // of 8 rows of x
  int warpgroups = 4;   // of a block, 64 rows of weights each
  int cluster = 1;      // blocks side by side along K
  int stages = 3;       // chunks of a warp's weights in shared memory
  int x_stages = 2;     // chunks of x
  bool operator==(const WarpgroupTiling&) const = default;
};
Variant warpgroup_variant(const Form&, const WarpgroupTiling&, bool gated);
size_t warpgroup_shared_bytes(const Form&, const WarpgroupTiling&);
// As many stages as fit.
WarpgroupTiling with_stages(const Form&, WarpgroupTiling, size_t room);

// The tiling for a product with m rows of x of a weight of `rows` (gated: of both) where it is faster than
// mma.sync with the same bits.
std::optional<WarpgroupTiling> warpgroup_tiling(const Form&, int64_t rows, int64_t cols, int64_t m,
                                                const DeviceFacts&);

std::vector<Variant> warpgroup_stock(int capability);

// As matmul_few().
void matmul_few_sm90(KernelCache&, Stream&, std::span<const MatMulCall>, const WarpgroupTiling&);

}  // namespace cairn::cuda
