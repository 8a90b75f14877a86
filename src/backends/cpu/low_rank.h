// Low-rank products without their wide values in memory (FlashSVD, arXiv 2508.01506, for caches instead of
// on-chip memory): a thread takes a tile of rows and has the wide rows of that tile only, in its second-level
// cache. A product is whole in its tile, so the bits are those of the products one after another.
#pragma once

#include <span>

#include "backends/cpu/row_kernels.h"
#include "backends/cpu/weights.h"

namespace cairn::cpu {

// p [rows, rank] and the weight [out, rank] that it is multiplied with; bias [out] or null.
struct LowRankFactor {
  const PackedMatrix* up = nullptr;
  const float* bias = nullptr;
  const float* p = nullptr;
};

// Per-thread memory, 64-byte aligned: the product kernels' own, then what the *_bytes functions say.
struct ThreadMemory {
  std::byte* data = nullptr;
  size_t kernel_bytes = 0, stride = 0;
  std::byte* kernel(int thread) const { return data + size_t(thread) * stride; }
  std::byte* tile(int thread) const { return kernel(thread) + kernel_bytes; }
};

// What planning knows of a factor.
struct LowRankShape {
  const MatMulKernel* kernel = nullptr;  // null: absent
  int64_t out = 0, rank = 0;
};

// Rows of a wide value that a step with few rows needs room for, in shared memory.
int64_t low_rank_few_rows(int threads);
size_t low_rank_mlp_tile_bytes(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down);
// Of the shared memory for few rows: they are cut by panels, since there are too few tiles for all threads.
size_t low_rank_mlp_shared_bytes(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down,
                                 int64_t rows, int threads);

// y [rows, out] = act(up) down^T, or (act(gate) * up) down^T. gate.up null: none.
void low_rank_mlp(ThreadPool&, const RowKernels&, const LowRankFactor& up, const LowRankFactor& gate,
                  const PackedMatrix& down, program::Activation, int64_t rows, float* y, const ThreadMemory&,
                  std::span<std::byte> shared);

size_t low_rank_rows_tile_bytes(const LowRankShape&, int64_t columns);

// to [rows, columns.size()] = columns of p up^T + bias.
struct LowRankColumns {
  LowRankFactor factor;
  Range columns;
  float* to = nullptr;
};
void expand_columns(ThreadPool&, const RowKernels&, std::span<const LowRankColumns>, int64_t rows,
                    const ThreadMemory&);

}  // namespace cairn::cpu
