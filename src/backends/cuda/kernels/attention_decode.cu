// Attention of rows that extend an answer, over the paged cache:
//   y[r, h] = sum_t p_t V[t] / sum_t p_t, p_t = exp(logit(scale q[r, h] . K[t])).
// A row's tokens are cut in chunks (attention_schedule.h: by its position alone). One warp takes a chunk of one KV head
// for all query heads of the group (and, where they fit, several rows of a sequence): K and V are read once. Where a row
// has several chunks, the warp leaves a state and attention_merge.cu joins them.
//
// Bound: memory, 2 * 2 * dim bytes per token and KV head. So every warp is its own pipeline: a ring of STAGES tiles of
// 32 tokens in shared memory that only it fills (asynchronous copies) and reads, which runs on over the end of an item
// into the next, without any barrier of the block. 4 warps x 3 stages x 16 KiB keep about 130 KiB per multiprocessor under
// way (4.3 TB/s at 1 us need 33 KiB).
//
// The products have the tokens as rows of 16 and the query vectors as columns of 8: S' = K Q', Y' = V' P'. A group of 4
// or 8 heads wastes half or nothing, against three quarters or half if the vectors were the rows.
#include "attention_logit.cuh"
#include "attention_records.cuh"

using namespace cairn::cuda;

#ifndef DIM_K
#define DIM_K 128
#define DIM_V 128
#define KV_HEADS 8
#define GROUP 4
#define PAGE 32
#endif
#ifndef VECTORS
#define VECTORS 8  // query vectors of an item, 8 or 16 (or more)
#endif
#ifndef WARPS
#define WARPS 4
#endif
#ifndef STAGES
#define STAGES 3
#endif

constexpr int kTile = 32;
constexpr int kHeads = KV_HEADS * GROUP;
constexpr int kSlices = (GROUP + VECTORS - 1) / VECTORS;  // a large group is cut in slices of heads
constexpr int kN = VECTORS / 8;
// Rows in shared memory are an odd number of 16-byte chunks apart: 8 of them fill all banks.
constexpr int kChunksK = DIM_K / 8, kChunksV = DIM_V / 8;
constexpr int kStrideK = (kChunksK | 1) * 16, kStrideV = (kChunksV | 1) * 16;
constexpr int kStageBytes = kTile * (kStrideK + kStrideV);
static_assert(DIM_K % 16 == 0 && DIM_V % 16 == 0, "head sizes are multiples of 16");

// The tile that is being fetched.
struct Fetch {
  int index;  // item * KV heads * slices + ...
  int token, begin, end, fresh;
  int kv_head;
  const i32* table;
  u32 row;  // of this lane's token (or the tile's first one) in the layer's segment
  bool live;
};

DEVICE void open_item(Fetch& f, const DecodeItem* items, const i32* tables) {
  const DecodeItem* item = items + f.index / (KV_HEADS * kSlices);
  f.kv_head = f.index % (KV_HEADS * kSlices) / kSlices;
  f.begin = item->token_begin, f.end = item->token_end, f.fresh = item->fresh;
  f.token = f.begin / kTile * kTile - kTile;
  f.table = tables + item->table;
}

// Goes to the next tile.
DEVICE void next_tile(Fetch& f, int total, int workers, const DecodeItem* items, const i32* tables, int lane,
                      bool& waited) {
  if (!f.live) return;
  f.token += kTile;
  if (f.token >= f.end) {
    f.index += workers;
    f.live = f.index < total;
    if (!f.live) return;
    open_item(f, items, tables);
    f.token += kTile;
  }
  if (!waited && min(f.end, f.token + kTile) > f.fresh) {
    wait_for_previous();
    waited = true;
  }
  const int token = PAGE >= kTile ? f.token : min(max(f.token + lane, f.begin), f.end - 1);
  f.row = u32((f.table[token / PAGE] * KV_HEADS + f.kv_head) * PAGE + token % PAGE);
}

template <int chunks, int stride> DEVICE void fetch_rows(const Fetch& f, u32 to, const u8* from, int lane) {
  if (f.live) {
#pragma unroll
    for (int i = 0; i < chunks; ++i) {
      const int at = i * 32 + lane, row = at / chunks, chunk = at % chunks;
      const u32 source = PAGE >= kTile ? f.row + row : __shfl_sync(0xffffffffu, f.row, row);
      const bool valid = f.token + row >= f.begin && f.token + row < f.end;
      copy16_async(to + row * stride + chunk * 16, from + u64(source) * (chunks * 16) + chunk * 16, valid);
    }
  }
  commit_copies();
}

// Which row and head of the item a column of the products is.
struct Vector {
  int row, head;
  bool valid;
};
DEVICE Vector vector_of(int column, int rows, int slice) {
  if (kSlices > 1) return {0, slice * VECTORS + column, slice * VECTORS + column < GROUP};
  return {column / GROUP, column % GROUP, column / GROUP < rows};
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1)
    attention_decode(const bf16* q, i64 q_stride, bf16* y, i64 y_stride, const u8* cache_k, const u8* cache_v,
                     const u8* plan, const PlanHead* head, float* states, float* state_sums, float* lse,
                     const float* sinks, const float* slopes, float scale, float softcap) {
  extern __shared__ __align__(128) u8 shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int workers = gridDim.x * WARPS, worker = warp * gridDim.x + blockIdx.x;
  const int total = head->decode_items * (KV_HEADS * kSlices);
  const auto* items = reinterpret_cast<const DecodeItem*>(plan + head->decode_items_at);
  const auto* rows = reinterpret_cast<const DecodeRow*>(plan + head->decode_rows_at);
  const auto* tables = reinterpret_cast<const i32*>(plan + head->tables_at);
  const u32 ring = shared_address(shared) + warp * (STAGES * kStageBytes);
  const LogitRule rule = logit_rule(scale, softcap);
  bool waited = false;
  release_next();

  Fetch fetch{};
  fetch.index = worker, fetch.live = worker < total;
  if (fetch.live) open_item(fetch, items, tables);
#pragma unroll 1
  for (int s = 0; s < STAGES; ++s) {
    next_tile(fetch, total, workers, items, tables, lane, waited);
    fetch_rows<kChunksK, kStrideK>(fetch, ring + s * kStageBytes, cache_k, lane);
    fetch_rows<kChunksV, kStrideV>(fetch, ring + s * kStageBytes + kTile * kStrideK, cache_v, lane);
  }
  if (!waited) wait_for_previous();
  waited = true;

  int stage = 0;
#pragma unroll 1
  for (int index = worker; index < total; index += workers) {
    const DecodeItem* item = items + index / (KV_HEADS * kSlices);
    const int slice = index % kSlices, kv_head = index % (KV_HEADS * kSlices) / kSlices;
    const int first_row = item->first_row, item_rows = item->rows;
    const int token_end = item->token_end;

    u32 query[kN][DIM_K / 16][2];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const Vector v = vector_of(n * 8 + g, item_rows, slice);
      const bf16* from = v.valid ? q + rows[first_row + v.row].q_row * q_stride + (kv_head * GROUP + v.head) * DIM_K : q;
#pragma unroll
      for (int k = 0; k < DIM_K / 16; ++k) {
        query[n][k][0] = v.valid ? query_pair(load_pair(from + k * 16 + 2 * t)) : 0;
        query[n][k][1] = v.valid ? query_pair(load_pair(from + k * 16 + 2 * t + 8)) : 0;
      }
    }
    // Columns 2 t and 2 t + 1 of each product: their tokens, slopes and sums.
    int first[kN][2], last[kN][2];
    float slope[kN][2], most[kN][2], sum[kN][2];
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const Vector v = vector_of(n * 8 + 2 * t + c, item_rows, slice);
        first[n][c] = v.valid ? rows[first_row + v.row].begin : 0;
        last[n][c] = v.valid ? rows[first_row + v.row].position : 0x7fffffff;
        slope[n][c] = ALIBI && v.valid ? slopes[kv_head * GROUP + v.head] * LOG2E : 0.f;
        most[n][c] = -INFINITE;
        sum[n][c] = 0;
      }
    float out[DIM_V / 16][kN][4];
#pragma unroll
    for (int d = 0; d < DIM_V / 16; ++d)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) out[d][n][c] = 0;

#pragma unroll 1
    for (int token = item->token_begin / kTile * kTile; token < token_end; token += kTile) {
      const u32 tile_k = ring + stage * kStageBytes, tile_v = tile_k + kTile * kStrideK;

      wait_copies<2 * STAGES - 1>();
      __syncwarp();
      float s[2][kN][4];
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int c = 0; c < 4; ++c) s[m][n][c] = 0;
#pragma unroll
      for (int k = 0; k < DIM_K / 16; ++k)
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          u32 a[4];
          load_matrices(a, tile_k + (m * 16 + lane % 16) * kStrideK + (k * 2 + lane / 16) * 16);
#pragma unroll
          for (int n = 0; n < kN; ++n) mma_pair(s[m][n], a, query[n][k][0], query[n][k][1]);
        }
      __syncwarp();
      next_tile(fetch, total, workers, items, tables, lane, waited);
      fetch_rows<kChunksK, kStrideK>(fetch, tile_k, cache_k, lane);

      bool seen = true;
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) seen = seen && first[n][c] <= token && last[n][c] >= token + kTile - 1;
      const bool whole = __all_sync(0xffffffffu, seen);

      u32 p[2][kN][2];
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float x[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int at = token + i * 8 + g;
            x[i] = logit(rule, s[i / 2][n][i % 2 * 2 + c], slope[n][c], at - last[n][c]);
            if (!whole && (at < first[n][c] || at > last[n][c])) x[i] = -INFINITE;
          }
          float tile_most = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 4));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 8));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 16));
          const float next = fmaxf(most[n][c], tile_most), base = next == -INFINITE ? 0.f : next;
          const float keep = exp2_approximate(most[n][c] - base);
          most[n][c] = next;
#pragma unroll
          for (int i = 0; i < 4; ++i) s[i / 2][n][i % 2 * 2 + c] = x[i] = exp2_approximate(x[i] - base);
          sum[n][c] = sum[n][c] * keep + ((x[0] + x[1]) + (x[2] + x[3]));
#pragma unroll
          for (int d = 0; d < DIM_V / 16; ++d) out[d][n][c] *= keep, out[d][n][c + 2] *= keep;
        }
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int h = 0; h < 2; ++h) p[m][n][h] = transpose(pack_pair(s[m][n][2 * h], s[m][n][2 * h + 1]));

      wait_copies<2 * STAGES - 1>();
      __syncwarp();
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int d = 0; d < DIM_V / 16; ++d) {
          u32 a[4];
          load_transposed(a, tile_v + (m * 16 + lane / 16 * 8 + lane % 8) * kStrideV + (d * 2 + lane / 8 % 2) * 16);
#pragma unroll
          for (int n = 0; n < kN; ++n) mma_pair(out[d][n], a, p[m][n][0], p[m][n][1]);
        }
      __syncwarp();
      fetch_rows<kChunksV, kStrideV>(fetch, tile_v, cache_v, lane);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
    }

#pragma unroll
    for (int n = 0; n < kN; ++n) {
      bool direct[2];
      float factor[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float total_sum = sum[n][c];
        total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 4);
        total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 8);
        total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 16);
        const Vector v = vector_of(n * 8 + 2 * t + c, item_rows, slice);
        const int q_head = kv_head * GROUP + v.head;
        const DecodeRow* row = rows + (v.valid ? first_row + v.row : first_row);
        const bool mine = v.valid && u32(item->chunk - row->first_chunk) < u32(row->parts);
        direct[c] = mine && row->parts == 1;
        factor[c] = 1;
        if (direct[c]) {
          float largest = most[n][c], shrink = 1;
          if (SINKS) {
            const float sink = sinks[q_head] * LOG2E;
            largest = fmaxf(largest, sink);
            shrink = exp2_approximate(most[n][c] - largest);
            total_sum = total_sum * shrink + exp2_approximate(sink - largest);
          }
          factor[c] = total_sum > 0.f ? shrink / total_sum : 0.f;
          if (lse && g == 0)
            lse[i64(row->q_row) * kHeads + q_head] = (largest + log2_approximate(total_sum)) * LN2;
        } else if (mine) {
          const i64 vector = i64(row->state_base + item->chunk) * kHeads + q_head;
          if (g == 0) state_sums[vector * 2] = most[n][c], state_sums[vector * 2 + 1] = total_sum;
#pragma unroll
          for (int d = 0; d < DIM_V / 16; ++d) {
            states[vector * DIM_V + d * 16 + g] = out[d][n][c];
            states[vector * DIM_V + d * 16 + g + 8] = out[d][n][c + 2];
          }
        }
      }
      // The lane that holds two elements of one vector after the transposition: column g.
      const Vector v = vector_of(n * 8 + g, item_rows, slice);
      const DecodeRow* row = rows + (v.valid ? first_row + v.row : first_row);
      bf16* to = y + row->q_row * y_stride + (kv_head * GROUP + v.head) * DIM_V + 2 * t;
      const bool write = v.valid && row->parts == 1 && item->chunk == row->first_chunk;
      if (__any_sync(0xffffffffu, direct[0] || direct[1])) {
#pragma unroll
        for (int d = 0; d < DIM_V / 16; ++d)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const u32 pair = transpose(to_bf16x2(out[d][n][2 * h] * factor[0], out[d][n][2 * h + 1] * factor[1]));
            if (write) *reinterpret_cast<u32*>(to + d * 16 + h * 8) = pair;
          }
      }
    }
  }
  wait_copies<0>();
}
