// Products of rows of prompts (RowClass::prompt) with a weight: launcher of kernels/matmul_many_sm90.cu and,
// before sm_90, kernels/matmul_many.cu. Rows in bf16 and in any number; bits of a row as promised in
// matmul.h: every kernel and tile adds a row's products in the order of K, in one accumulator per result.
//
// Weights that are not bf16 rows are unpacked to bf16, so many rows at a time that they stay in L2 until the
// product has read them.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"

namespace cairn::cuda {

// 16-bit rows of a weight in device memory, k elements each, on 16 bytes.
struct DenseRows {
  Address data = 0;
  int64_t n = 0, k = 0;
};

// One way to cut a product into pieces, for kernels/matmul_many_sm90.cu (consumers > 0) or
// kernels/matmul_many.cu.
struct ManyTile {
  int rows, columns, stages;
  int consumers = 0;
  int cluster_m = 1, cluster_n = 1;
  double rate;  // of a full device, relative to the best: measured by cuda_gemm_bench
  bool operator==(const ManyTile&) const = default;
};
std::vector<ManyTile> many_tiles(int capability);
// The tile that should be fastest; the choice does not change any bits.
ManyTile choose_many_tile(const DeviceFacts&, int64_t m, int64_t n, bool gated);

// y of call = x w^T, with call's epilogue; call.w and call.up are not read. up: null unless gated. k must be
// a multiple of 8: throws Error(unsupported).
void matmul_dense(KernelCache&, Stream&, const DenseRows& w, const DenseRows* up, const MatMulCall&);
void matmul_dense(KernelCache&, Stream&, const DenseRows& w, const DenseRows* up, const MatMulCall&,
                  const ManyTile&);

// What matmul_dense may ask of the cache for calls with this epilogue and any m.
std::vector<Variant> matmul_dense_variants(int capability, const MatMulCall&);
// For the table of families.
std::vector<Variant> matmul_many_stock(int capability);
std::vector<Variant> matmul_many_sm90_stock(int capability);

}  // namespace cairn::cuda
