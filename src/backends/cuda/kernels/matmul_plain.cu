// y[r, n] = sum_k x[r, k] w[n, k] in f32, ascending k in one chain per element: the reference that the fast
// kernels are tested against, and the f32 mode. X: float or bf16; W: float or bf16; Y: float or bf16.
// blockIdx.z: expert pairs.
#include "device.cuh"

#ifndef X
#define X float
#endif
#ifndef W
#define W float
#endif
#ifndef Y
#define Y float
#endif

constexpr int kTile = 32;  // rows and columns of a block's part of y; threads: 256, four results each

// chosen: null, or for row r the piece of the weight it multiplies (MoE); x_rows_per_row: row r reads x row
// r / x_share. stride_y: elements between rows of y.
extern "C" __global__ void matmul_plain(const X* x, const W* w, const float* bias, Y* y, int m, int n, int k,
                                        const i32* chosen, i64 piece_elements, int x_share) {
  wait_for_previous();
  __shared__ float xs[kTile][kTile + 1], ws[kTile][kTile + 1];
  const int r0 = blockIdx.y * kTile, n0 = blockIdx.x * kTile, tx = threadIdx.x % 32, ty = threadIdx.x / 32;
  if (chosen) w += chosen[blockIdx.y] * piece_elements;  // then a block holds one row only
  const int row_end = chosen ? min(m, int(blockIdx.y) + 1) : m, first = chosen ? int(blockIdx.y) : r0;
  float sum[4] = {0, 0, 0, 0};
  for (int k0 = 0; k0 < k; k0 += kTile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int line = ty + 8 * i, at = k0 + tx;
      xs[line][tx] =
          first + line < row_end && at < k ? load_as_float(x + i64((first + line) / x_share) * k + at) : 0.f;
      ws[line][tx] = n0 + line < n && at < k ? load_as_float(w + i64(n0 + line) * k + at) : 0.f;
    }
    __syncthreads();
    for (int j = 0; j < kTile; ++j) {
      const float b = ws[tx][j];
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += xs[ty + 8 * i][j] * b;
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first + ty + 8 * i, column = n0 + tx;
    if (row < row_end && column < n)
      store_from_float(y + i64(row) * n + column, sum[i] + (bias ? bias[column] : 0.f));
  }
}
