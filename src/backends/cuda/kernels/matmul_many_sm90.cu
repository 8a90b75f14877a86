// y[m, n] = epilogue(x[m, k] w[n, k]^T) for rows of prompts, on sm_90a: wgmma fed by the tensor copy engine.
//
// Bound: the matrix units. Blocks are persistent, one per multiprocessor. One warp brings tiles of x and w,
// 128 bytes of K wide and swizzled, into a ring of STAGES; CONSUMERS warpgroups multiply, 64 SUBTILES rows
// each by all TILE_N columns, and write their results through shared memory while the ring fills with the
// next tile. Clusters of CLUSTER_M (CLUSTER_N) blocks work on neighbouring tiles of rows (columns) and share
// what they read of w (x) by multicast, which halves the reads from L2.
//
// A row's sums run over K in order, 32 bytes per instruction, in one accumulator: the bits are the same for
// every tile shape and every place of the row.
//
// Shapes: k and the row strides multiples of 16 bytes; any m and n. Bias, y and add as in matmul.h.
#include "activation.cuh"
#include "hopper.cuh"

#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef SUBTILES
#define SUBTILES 1
#endif
#ifndef TILE_N
#define TILE_N 256
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef CLUSTER_M
#define CLUSTER_M 1
#endif
#ifndef CLUSTER_N
#define CLUSTER_N 1
#endif
#ifndef ELEMENT  // of x and w: 0 bf16, 1 f16, 2 e4m3
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
#ifndef CAPPED  // softcap is used
#define CAPPED 0
#endif
#ifndef ADDED  // add is read (not needed for f32 results where add is y: then the copy engine adds)
#define ADDED 0
#endif
#ifndef BOXED  // 1: y is written by the copy engine (y and its row stride multiples of 16 bytes)
#define BOXED 1
#endif

struct Epilogue {
  const float* bias;
  const float* add;  // unless ADDED: y or null
  void* y;
  i64 y_stride;
  float scale, softcap;
};

constexpr Element kElement = Element(ELEMENT);
constexpr int kStepColumns = kElement == Element::e4m3 ? 128 : 64;  // of K in a stage: 128 bytes
constexpr int kTileM = CONSUMERS * SUBTILES * 64;
constexpr int kOutN = GATED ? TILE_N / 2 : TILE_N;
constexpr int kCluster = CLUSTER_M * CLUSTER_N;
static_assert(kCluster <= 2, "pairs at most");
constexpr u32 kXBytes = kTileM * 128, kWBytes = TILE_N * 128, kStageBytes = kXBytes + kWBytes;
constexpr u32 kPieceBytes = 64 * 128;  // of y on its way out: 64 rows of 128 bytes
constexpr int kPieceColumns = OUT_F32 ? 32 : 64;
constexpr int kThreads = (CONSUMERS + 1) * 128;

// Tile pairs in an order that keeps the tiles in flight close together: `group` rows of tiles at a time,
// column by column, so that what they share stays in L2.
struct Tiles {
  int across_m, across_n, group;
  DEVICE Tiles(int m, int n, int group_) : group(group_) {
    across_m = (m + kTileM * CLUSTER_M - 1) / (kTileM * CLUSTER_M);
    across_n = (n + kOutN * CLUSTER_N - 1) / (kOutN * CLUSTER_N);
  }
  DEVICE int count() const { return across_m * across_n; }
  // First row and column of the tile of block `rank` of the pair.
  DEVICE void place(int index, u32 rank, int& row, int& column) const {
    const int per_group = group * across_n, first = index / per_group * group;
    const int rows = min(group, across_m - first), inside = index % per_group;
    const int tile_m = (first + inside % rows) * CLUSTER_M + (CLUSTER_M == 2 ? int(rank) : 0);
    const int tile_n = inside / rows * CLUSTER_N + (CLUSTER_N == 2 ? int(rank) : 0);
    row = tile_m * kTileM, column = tile_n * kOutN;
  }
};

// Place in the ring: the stage and the parity of its current round.
struct Ring {
  u32 stage = 0, parity = 0;
  DEVICE void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

DEVICE float finish(float sum, float bias, const Epilogue& e) {
  float v = fmaf(sum, e.scale, bias);
  if constexpr (CAPPED) v = e.softcap * tanh_by_sigmoid(v / e.softcap);
  return activate<ACTIVATION>(v);
}

// What this thread holds of 8 columns, as results: rows r and r + 8, two columns each.
DEVICE void results(const float (&d)[TILE_N / 2], int i, float bias0, float bias1, const Epilogue& e,
                    float (&v)[4]) {
  if constexpr (GATED) {
#pragma unroll
    for (int q = 0; q < 4; ++q) v[q] = activate<ACTIVATION>(d[4 * i + q]) * d[TILE_N / 4 + 4 * i + q];
  } else {
#pragma unroll
    for (int q = 0; q < 4; ++q) v[q] = finish(d[4 * i + q], q & 1 ? bias1 : bias0, e);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    matmul_many(const __grid_constant__ TensorMap x_map, const __grid_constant__ TensorMap w_map,
                const __grid_constant__ TensorMap up_map, const __grid_constant__ TensorMap y_map,
                const Epilogue e, int m, int n, int k, int group) {
  extern __shared__ u8 dynamic[];
  const u32 base = (shared_address(dynamic) + 1023) & ~1023u;
  const u32 staging = base + STAGES * kStageBytes;
  const u32 full = staging + (BOXED ? CONSUMERS * 2 * kPieceBytes : 0), empty = full + STAGES * 8;
  const u32 warpgroup = threadIdx.x / 128, rank = kCluster > 1 ? cluster_rank() : 0;
  const Tiles tiles(m, n, group);
  const int steps = (k + kStepColumns - 1) / kStepColumns;
  const int first_tile = blockIdx.x / kCluster, tile_stride = gridDim.x / kCluster;

  if (threadIdx.x == 0) {
    prefetch_map(&x_map), prefetch_map(&w_map);
    if (GATED) prefetch_map(&up_map);
    if (BOXED) prefetch_map(&y_map);
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s,
                   CONSUMERS * 4 * kCluster);  // each consumer warp of each block that reads the stage
    }
    barriers_ready();
  }
  if constexpr (kCluster > 1)
    cluster_meet();
  else
    __syncthreads();
  wait_for_previous();
  release_next();

  if (warpgroup == 0) {
    if constexpr (CONSUMERS == 2) shrink_registers<40>();
    if (threadIdx.x == 0) {
      Ring ring;
      for (int index = first_tile; index < tiles.count(); index += tile_stride) {
        int row, column;
        tiles.place(index, rank, row, column);
        for (int step = 0; step < steps; ++step, ring.next()) {
          const u32 x_to = base + ring.stage * kStageBytes, w_to = x_to + kXBytes,
                    done = full + 8 * ring.stage;
          const int at = step * kStepColumns;
          barrier_wait(empty + 8 * ring.stage, ring.parity ^ 1);
          barrier_expect(done, kStageBytes);
          if constexpr (CLUSTER_N == 2)
            load_box_for(3, x_to + rank * (kXBytes / 2), &x_map, at, row + int(rank) * (kTileM / 2), done);
          else
            load_box(x_to, &x_map, at, row, done);
          if constexpr (CLUSTER_M == 2) {
            if constexpr (GATED)
              load_box_for(3, w_to + rank * (kWBytes / 2), rank ? &up_map : &w_map, at, column, done);
            else
              load_box_for(3, w_to + rank * (kWBytes / 2), &w_map, at, column + int(rank) * (TILE_N / 2),
                           done);
          } else {
            load_box(w_to, &w_map, at, column, done);
            if constexpr (GATED) load_box(w_to + kWBytes / 2, &up_map, at, column, done);
          }
        }
      }
    }
  } else {
    if constexpr (CONSUMERS == 2) grow_registers<232>();
    const u32 consumer = warpgroup - 1, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    Ring ring;
    float d[SUBTILES][TILE_N / 2];
    for (int index = first_tile; index < tiles.count(); index += tile_stride) {
      u32 before = 0;  // the stage whose products run while the next ones are issued
      for (int step = 0; step < steps; ++step, ring.next()) {
        const u32 x_at = base + ring.stage * kStageBytes + consumer * (SUBTILES * 64 * 128);
        const u64 a = tile_descriptor(x_at), b = tile_descriptor(base + ring.stage * kStageBytes + kXBytes);
        barrier_wait(full + 8 * ring.stage, ring.parity);
        wgmma_begin();
#pragma unroll
        for (int q = 0; q < 4; ++q)
#pragma unroll
          for (int s = 0; s < SUBTILES; ++s)
            wgmma<kElement>(d[s], a + s * (64 * 128 / 16) + 2 * q, b + 2 * q, q > 0 || step > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0) {
          if (lane < kCluster) {
            if constexpr (kCluster > 1)
              barrier_arrive_at(empty + 8 * before, lane);
            else
              barrier_arrive(empty + 8 * before);
          }
        }
        before = ring.stage;
      }
      wgmma_wait<0>();
      if (lane < kCluster) {
        if constexpr (kCluster > 1)
          barrier_arrive_at(empty + 8 * before, lane);
        else
          barrier_arrive(empty + 8 * before);
      }

      int row, column;
      tiles.place(index, rank, row, column);
#pragma unroll
      for (int s = 0; s < SUBTILES; ++s) {
        const int first_row = row + (consumer * SUBTILES + s) * 64;
        const int my_row = first_row + warp * 16 + lane / 4;
#pragma unroll
        for (int piece = 0; piece < kOutN / kPieceColumns; ++piece) {
          const u32 to = staging + (consumer * 2 + piece % 2) * kPieceBytes;
          if constexpr (BOXED) {
            if (thread == 0) wait_stores_read<1>();
            meet(1 + consumer, 128);
          }
#pragma unroll
          for (int j = 0; j < kPieceColumns / 8; j += 2) {
            float v[2][4];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              const int i = piece * (kPieceColumns / 8) + j + h, c = column + 8 * i + 2 * (lane % 4);
              float bias0 = 0, bias1 = 0;
              if (!GATED && e.bias) {
                if (c < n) bias0 = e.bias[c];
                if (c + 1 < n) bias1 = e.bias[c + 1];
              }
              results(d[s], i, bias0, bias1, e, v[h]);
              if constexpr (ADDED) {
#pragma unroll
                for (int q = 0; q < 4; ++q) {
                  const int r = my_row + 8 * (q / 2), cc = c + q % 2;
                  if (r < m && cc < n) v[h][q] += e.add[r * e.y_stride + cc];
                }
              }
              if constexpr (!BOXED) {
#pragma unroll
                for (int q = 0; q < 4; ++q) {
                  const int r = my_row + 8 * (q / 2), cc = c + q % 2;
                  if (r < m && cc < n) {
                    if constexpr (OUT_F32)
                      static_cast<float*>(e.y)[r * e.y_stride + cc] = v[h][q];
                    else
                      static_cast<bf16*>(e.y)[r * e.y_stride + cc] = to_bf16(v[h][q]);
                  }
                }
              }
            }
            if constexpr (BOXED && !OUT_F32) {
              // Chunk c of 16 bytes of row r lies at chunk c ^ r % 8.
              const u32 r = warp * 16 + lane % 16, chunk = (j + lane / 16) ^ (r % 8);
              store_matrices(to + r * 128 + chunk * 16, to_bf16x2(v[0][0], v[0][1]),
                             to_bf16x2(v[0][2], v[0][3]), to_bf16x2(v[1][0], v[1][1]),
                             to_bf16x2(v[1][2], v[1][3]));
            }
            if constexpr (BOXED && OUT_F32) {
#pragma unroll
              for (int h = 0; h < 2; ++h) {
                const u32 r = warp * 16 + lane / 4, chunk = (2 * (j + h) + lane % 4 / 2) ^ (r % 8);
                const u32 at = to + r * 128 + chunk * 16 + lane % 2 * 8;
                store_pair(at, v[h][0], v[h][1]);
                store_pair(at + 8 * 128, v[h][2], v[h][3]);
              }
            }
          }
          if constexpr (BOXED) {
            publish_shared();
            meet(1 + consumer, 128);
            if (thread == 0) {
              const int c = column + piece * kPieceColumns;
              if (OUT_F32 && !ADDED && e.add)
                add_box(&y_map, c, first_row, to);
              else
                store_box(&y_map, c, first_row, to);
              commit_stores();
            }
          }
        }
      }
    }
    if (BOXED && thread == 0) wait_stores<0>();
  }
  if constexpr (kCluster > 1) {
    __syncwarp();
    cluster_meet();  // no block ends while the other still sends to its shared memory
  }
}
