// Products of the rows that extend answers with weights in planes of signs: by looking sums up
// (kernels/matmul_lookup.cu), which is fastest for one row and grows with each, or on the tensor cores
// (kernels/matmul_signs.cu). Their bits differ, so an engine takes one for all its life: MatMulCall::alone.
#pragma once

#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

// But for parts it never changes results.
struct LookupTiling {
  int sets = 1;  // of 32 rows of w in a warp
  int parts = 16;
  int min_blocks = 2;
  bool operator==(const LookupTiling&) const = default;
};

LookupTiling lookup_tiling(bool gated, int64_t m);
Variant lookup_variant(const Form&, const LookupTiling&, int64_t m, bool gated);

struct SignsTiling {
  int tokens = 8;  // rows of x of a pass: 8, 16 or 32
  int sets = 1;
  int parts = 8;
  int min_blocks = 2;
  bool operator==(const SignsTiling&) const = default;
};
SignsTiling signs_tiling(const Form&, bool gated, int64_t m);
Variant signs_variant(const Form&, const SignsTiling&, bool gated);

// The modules for any number of rows.
std::vector<Variant> matmul_planes_variants(const Form&, bool gated, bool alone);
std::vector<Variant> matmul_lookup_stock(int capability);
std::vector<Variant> matmul_signs_stock(int capability);

// One product, or up to four that share x, m, add and the form of their weights (add: of the first only).
void matmul_planes(KernelCache&, Stream&, std::span<const MatMulCall>);
void matmul_lookup(KernelCache&, Stream&, std::span<const MatMulCall>, const LookupTiling&);
void matmul_signs(KernelCache&, Stream&, std::span<const MatMulCall>, const SignsTiling&);

}  // namespace cairn::cuda
