// y[m, n] = epilogue(x[m, k] w[n, k]^T) for rows of prompts, on any device since sm_80: mma.sync fed by
// cp.async. The reference of matmul_many_sm90.cu on Hopper.
//
// Bound: the matrix units. A block computes TILE_M x TILE_N results with WARPS_M x WARPS_N warps; 64 columns
// of K per step go through a ring of STAGES in shared memory, 128 bytes a row, the 16-byte chunks swizzled by
// the row. A row's sums run over K in order, 16 at a time, in one accumulator: the same bits for every tile
// and place of a row.
//
// Shapes: k a multiple of 8, x and w on 16 bytes; any m and n. Bias, y and add as in matmul.h.
#include "activation.cuh"
#include "expert_tiles.cuh"
#include "mma.cuh"

#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef TILE_N
#define TILE_N 128
#endif
#ifndef WARPS_M
#define WARPS_M 2
#endif
#ifndef WARPS_N
#define WARPS_N 4
#endif
#ifndef STAGES
#define STAGES 3
#endif
#ifndef ELEMENT  // of x and w: 0 bf16, 1 f16
#define ELEMENT 0
#endif
#ifndef OUT_F32
#define OUT_F32 0
#endif
#ifndef GATED
#define GATED 0
#endif
#ifndef ACTIVATION
#define ACTIVATION 0
#endif

#ifndef EXPERTS  // as in matmul_many_sm90.cu
#define EXPERTS 0
#endif

struct Epilogue {
  const float* bias;
  const float* add;
  void* y;
  i64 y_stride;
  float scale, softcap;
};

struct Experts {
  const i32* begins;
  const i32* order;
  int count;
};

constexpr int kThreads = WARPS_M * WARPS_N * 32;
constexpr int kOutN = GATED ? TILE_N / 2 : TILE_N;
constexpr int kWarpM = TILE_M / WARPS_M, kWarpN = TILE_N / WARPS_N;  // gated: half of kWarpN of each weight
constexpr int kXBytes = TILE_M * 128, kStageBytes = (TILE_M + TILE_N) * 128;
static_assert(kWarpM % 16 == 0 && kWarpN % (GATED ? 32 : 16) == 0, "whole products of 16x8, two at a time");

// Address of 16-byte chunk `chunk` of row `row` of a tile.
DEVICE u32 chunk_at(u32 tile, int row, int chunk) { return tile + row * 128 + ((chunk ^ (row % 8)) * 16); }

// Row of the tile of w at which product pair j (16 columns) of a warp begins. Gated: the first half of a
// warp's columns is of the gate, the second half the same columns of up.
DEVICE int column_of(int warp_n, int j) {
  if constexpr (GATED) {
    constexpr int half = kWarpN / 32;
    return j < half ? warp_n * (kWarpN / 2) + 16 * j : TILE_N / 2 + warp_n * (kWarpN / 2) + 16 * (j - half);
  }
  return warp_n * kWarpN + 16 * j;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    matmul_many(const bf16* x, const bf16* w, const bf16* up, const Epilogue e, const Experts experts, int m,
                int n, int k, int group) {
  extern __shared__ __align__(128) u8 dynamic[];
  const u32 base = shared_address(dynamic);
  wait_for_previous();
  release_next();
  int across_m = (m + TILE_M - 1) / TILE_M;
#if EXPERTS
  __shared__ i32 ends[kMostExperts];
  if (threadIdx.x < 32) count_expert_tiles(experts.begins, experts.count, TILE_M, ends);
  __syncthreads();
  across_m = ends[experts.count - 1];
#endif
  // Order of tiles: `group` rows of tiles at a time, column by column.
  const int across_n = (n + kOutN - 1) / kOutN;
  if (int(blockIdx.x) >= across_m * across_n) return;  // blocks for as many tiles as experts may have
  const int per_group = group * across_n, first = int(blockIdx.x) / per_group * group;
  const int rows = min(group, across_m - first), inside = int(blockIdx.x) % per_group;
  const int tile = first + inside % rows, column0 = inside / rows * kOutN;
  int row0 = tile * TILE_M, row_end = m;
  const float* bias_of = e.bias;
#if EXPERTS
  const int expert = expert_of_tile(ends, experts.count, tile);
  row0 = experts.begins[expert] + (tile - (expert > 0 ? ends[expert - 1] : 0)) * TILE_M;
  row_end = experts.begins[expert + 1];
  w += i64(expert) * n * k;
  if (GATED) up += i64(expert) * n * k;
  if (bias_of) bias_of += i64(expert) * n;
#endif
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp / WARPS_N,
            warp_n = warp % WARPS_N;
  const int steps = (k + 63) / 64;

  const auto fetch = [&](int step) {
    const u32 to = base + step % STAGES * kStageBytes;
#pragma unroll
    for (int i = 0; i < (TILE_M + TILE_N) * 8 / kThreads; ++i) {
      const int index = i * kThreads + int(threadIdx.x), line = index / 8, chunk = index % 8;
      const int at = step * 64 + chunk * 8;
      if (line < TILE_M) {
        const int r = row0 + line;
        const bool valid = r < row_end && at < k;
        copy16_async(chunk_at(to, line, chunk), valid ? x + i64(r) * k + at : x, valid);
      } else {
        const int wl = line - TILE_M;
        const bool of_up = GATED && wl >= TILE_N / 2;
        const int c = column0 + (of_up ? wl - TILE_N / 2 : wl);
        const bool valid = c < n && at < k;
        const bf16* from = of_up ? up : w;
        copy16_async(chunk_at(to + kXBytes, wl, chunk), valid ? from + i64(c) * k + at : from, valid);
      }
    }
  };

#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < steps) fetch(s);
    commit_copies();
  }
  float d[kWarpM / 16][kWarpN / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
    commit_copies();
    const u32 x_at = base + step % STAGES * kStageBytes, w_at = x_at + kXBytes;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      u32 a[kWarpM / 16][4];
#pragma unroll
      for (int i = 0; i < kWarpM / 16; ++i)
        load_matrices(a[i], chunk_at(x_at, warp_m * kWarpM + 16 * i + lane % 16, 2 * q + lane / 16));
#pragma unroll
      for (int j = 0; j < kWarpN / 16; ++j) {
        u32 b[4];  // columns 0..7: k 0..7 and 8..15, then columns 8..15
        load_matrices(b,
                      chunk_at(w_at, column_of(warp_n, j) + lane % 8 + lane / 16 * 8, 2 * q + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < kWarpM / 16; ++i) {
          if constexpr (ELEMENT == 1) {
            mma_f16(d[i][2 * j], a[i], b[0], b[1]);
            mma_f16(d[i][2 * j + 1], a[i], b[2], b[3]);
          } else {
            mma_bf16(d[i][2 * j], a[i], b[0], b[1]);
            mma_bf16(d[i][2 * j + 1], a[i], b[2], b[3]);
          }
        }
      }
    }
  }

  constexpr int kPieces = kOutN / WARPS_N / 8;  // of 8 columns of y a warp has
  const bool pairs = e.y_stride % 2 == 0 && n % 2 == 0;
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int c = column0 + warp_n * (kPieces * 8) + 8 * j + 2 * (lane % 4);
    if (c >= n) continue;
    const bool second = c + 1 < n;
    float bias[2] = {0, 0};
    if (!GATED && bias_of) {
      bias[0] = bias_of[c];
      if (second) bias[1] = bias_of[c + 1];
    }
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = row0 + warp_m * kWarpM + 16 * i + 8 * h + lane / 4;
        if (r >= row_end) continue;
        float v[2];
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          if constexpr (GATED) {
            v[q] = activate<ACTIVATION>(d[i][j][2 * h + q]) * d[i][kPieces + j][2 * h + q];
          } else {
            v[q] = fmaf(d[i][j][2 * h + q], e.scale, bias[q]);
            if (e.softcap != 0.f) v[q] = e.softcap * tanh_by_sigmoid(v[q] / e.softcap);
            v[q] = activate<ACTIVATION>(v[q]);
          }
        }
        const i64 at = (EXPERTS && experts.order ? experts.order[r] : r) * e.y_stride + c;
        if (e.add) {
          v[0] += e.add[at];
          if (second) v[1] += e.add[at + 1];
        }
        if constexpr (OUT_F32) {
          float* y = static_cast<float*>(e.y) + at;
          y[0] = v[0];
          if (second) y[1] = v[1];
        } else {
          bf16* y = static_cast<bf16*>(e.y) + at;
          if (pairs) {
            *reinterpret_cast<u32*>(y) = to_bf16x2(v[0], v[1]);
          } else {
            y[0] = to_bf16(v[0]);
            if (second) y[1] = to_bf16(v[1]);
          }
        }
      }
  }
}
