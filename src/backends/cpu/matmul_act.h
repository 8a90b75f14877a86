// Where the parts of a prepared left-side row lie. Private to the matmul kernels; every translation unit gets
// its own copy (internal linkage), since some are compiled for processors that others must not assume.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/matmul.h"

namespace cairn::cpu {
namespace {

constexpr int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Rows an odd number of cache lines apart never fall into one cache set.
constexpr size_t odd_lines(int64_t bytes) { return size_t((align64(bytes) / 64 | 1) * 64); }

// q8_block32: int8 q[cols], f32 scale[blocks], i32 minus_sum[blocks] (minus the sum of the block's q)
struct ActBlock32 {
  static constexpr int64_t scale_at(int64_t cols) { return align64(cols); }
  static constexpr int64_t sum_at(int64_t cols) { return scale_at(cols) + align64(cols / 32 * 4); }
  static constexpr size_t row_bytes(int64_t cols) { return odd_lines(sum_at(cols) + cols / 32 * 4); }
};

// q8_block256: int8 q[cols], f32 scale[blocks], and per block i16 sums: 16 of 16 elements, then 8 of 32
struct ActBlock256 {
  static constexpr int64_t kSumBytes = 48;
  static constexpr int64_t scale_at(int64_t cols) { return align64(cols); }
  static constexpr int64_t sum_at(int64_t cols) { return scale_at(cols) + align64(cols / 256 * 4); }
  static constexpr size_t row_bytes(int64_t cols) { return odd_lines(sum_at(cols) + cols / 256 * kSumBytes); }
};

// signed_sums: f32 [cols / 4][16], entry p of four elements has + where bit of p is set; f32 [cols / 128]
// sums
struct ActSignedSums {
  static constexpr int64_t sum_at(int64_t cols) { return cols * 16; }
  static constexpr size_t row_bytes(int64_t cols) { return odd_lines(sum_at(cols) + cols / 128 * 4); }
};

// f32 and bf16: the elements, zeros up to a multiple of 32
struct ActFloat {
  static constexpr int64_t padded(int64_t cols) { return (cols + 31) / 32 * 32; }
  static constexpr size_t row_bytes(int64_t cols, int64_t element) {
    return odd_lines(padded(cols) * element);
  }
};

}  // namespace
}  // namespace cairn::cpu
