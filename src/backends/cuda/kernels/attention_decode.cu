// Attention of rows that extend an answer, over the paged cache:
//   y[r, h] = sum_t p_t V[t] / sum_t p_t, p_t = exp(logit(scale q[r, h] . K[t])).
// A row's tokens are cut in chunks (attention_schedule.h: by its position alone). A block takes a chunk of
// one KV head for all query heads of the group (and, where they fit, several rows of a sequence): K and V are
// read once. Tile i of TILE tokens, counted from token 0, belongs to warp i % WARPS. The warps' states are
// joined in shared memory in the order of the warps; where a row has several chunks, attention_merge.cu joins
// theirs. So all sums have one order, whichever block comes when.
//
// Bound: memory, 2 * 2 * dim bytes per token and KV head. Every warp is its own pipeline: a ring of STAGES
// tiles in shared memory that only it fills (asynchronous copies) and reads, and which runs on over the end
// of an item into the next. 8 warps x 2 tiles x 8 KiB keep 128 KiB per multiprocessor under way (4.3 TB/s at
// 1 us need 33 KiB). Tiles that lie in the cache from earlier steps are fetched before the previous kernel
// has ended.
//
// The products have the tokens as rows of 16 and the query vectors as columns of 8: S' = K Q', Y' = V' P'. A
// group of 4 or 8 heads wastes half or nothing, against three quarters or half if the vectors were the rows.
//
// SHARED 1: items of rows of any sequences that read the same pages (attention/shared_prefix.h), up to
// VECTORS query vectors at a time, which lie in shared memory. Each vector's arithmetic is that of SHARED 0
// with as many WARPS and the same TILE: the states are the same to the bit. Keys and values come mostly from
// the second-level cache then, and a matrix read from shared memory serves VECTORS / 8 products.
//
// Dropped: a warp per chunk, with four to eight times as many states: 3.69 TB/s at 64 x 4096 where the device
// is to be full at batch 1 too. Joining the chunks in the block that ends last: its fence waits for the
// copies under way, 2.4 us per item.
#include "attention_logit.cuh"
#include "attention_records.cuh"
#include "warp_tensor.cuh"

using namespace cairn::cuda;

#if PRODUCTS_F16
#define mma_pair mma_f16
#else
#define mma_pair mma_bf16
#endif
#ifndef DIM_K
#define DIM_K 128
#define DIM_V 128
#define KV_HEADS 8
#define GROUP 4
#define PAGE 32
#endif
#ifndef VECTORS
#define VECTORS 8  // query vectors of an item, 8 or 16; 16 or 32 if SHARED
#endif
#ifndef SHARED
#define SHARED 0
#endif
#ifndef JOINED
#define JOINED VECTORS  // query vectors whose states are joined at once
#endif
#ifndef WARPS
#define WARPS 8
#endif
#ifndef TILE
#define TILE 16  // tokens, 16 or 32
#endif
#ifndef STAGES
#define STAGES 2
#endif

constexpr int kTile = TILE;
constexpr int kM = TILE / 16;
constexpr int kHeads = KV_HEADS * GROUP;
constexpr int kSlices = (GROUP + VECTORS - 1) / VECTORS;  // a large group is cut in slices of heads
constexpr int kN = VECTORS / 8;
// Rows in shared memory are an odd number of 16-byte chunks apart: 8 of them fill all banks.
constexpr int kStrideK = (DIM_K / 8 | 1) * 16, kStrideV = (DIM_V / 8 | 1) * 16;
// So are rows of codes; their scales follow them.
constexpr int kCodeStrideK = (DIM_K / 16 | 1) * 16, kCodeStrideV = (DIM_V / 16 | 1) * 16;
template <int dim>
DEVICE constexpr int tile_bytes() {
  return CACHE_BYTES ? kTile * (dim / 16 | 1) * 16 + (CACHE_SCALES ? kTile * (dim / 32) * 2 : 0)
                     : kTile * (dim / 8 | 1) * 16;
}
constexpr int kTileK = tile_bytes<DIM_K>(), kTileV = tile_bytes<DIM_V>();
constexpr int kStageBytes = kTileK + kTileV;
constexpr int kThreads = WARPS * 32, kStep = kTile * WARPS;
constexpr int kQuads = DIM_V / 4;
constexpr int kPasses = VECTORS / JOINED;
constexpr int kStrideQ = (DIM_K / 8 | 1) * 16;  // bytes of a query in shared memory
static_assert(!SHARED || kN % 2 == 0, "");
constexpr int kOutStride = DIM_V + 4;  // floats: the four vectors that a warp stores at once fill all banks
static_assert(!CACHE_BYTES || (DIM_K % 32 == 0 && DIM_V % 32 == 0 && PAGE >= 16), "");
static_assert(DIM_K % 16 == 0 && DIM_V % 16 == 0, "head sizes are multiples of 16");

// The tile that is being fetched.
struct Fetch {
  int index;  // item * KV heads * slices + ...
  int token, begin, end, fresh;
  int kv_head;
  int table;
  u32 row;  // of this lane's token (or the tile's first one) in the layer's segment
  bool live;
  int next_begin, next_end, next_fresh, next_table;  // of the item after this one, read ahead
};

// The warp's first tile from `begin` on.
DEVICE int first_tile(int begin, int warp) {
  const int tile = begin / kTile;
  return (tile + (warp + WARPS - tile % WARPS) % WARPS) * kTile;
}

DEVICE void read_ahead(Fetch& f, int index, int total, const DecodeItem* items) {
  if (index >= total) return;
  const DecodeItem* item = items + index / (KV_HEADS * kSlices);
  f.next_begin = item->token_begin, f.next_end = item->token_end;
  f.next_fresh = item->fresh, f.next_table = item->table;
}
// The item that was read ahead.
DEVICE void open_item(Fetch& f, int index, int total, const DecodeItem* items, int warp) {
  f.index = index, f.live = index < total;
  f.kv_head = index % (KV_HEADS * kSlices) / kSlices;
  f.begin = f.next_begin, f.end = f.next_end, f.fresh = f.next_fresh, f.table = f.next_table;
  f.token = first_tile(f.begin, warp);
  read_ahead(f, index + gridDim.x, total, items);
}

// Goes to the warp's next tile, which may be one of a later item.
DEVICE void next_tile(Fetch& f, int total, const DecodeItem* items, const i32* tables, int warp, int lane,
                      bool& waited) {
  f.token += kStep;
  while (f.live && f.token >= f.end) open_item(f, f.index + gridDim.x, total, items, warp);
  if (!f.live) return;
  if (!waited && min(f.end, f.token + kTile) > f.fresh) {
    wait_for_previous();
    waited = true;
  }
  const int token = PAGE >= kTile ? f.token : min(max(f.token + lane, f.begin), f.end - 1);
  f.row = u32((tables[f.table + token / PAGE] * KV_HEADS + f.kv_head) * PAGE + token % PAGE);
}

// Copies a tile of rows of `dim` elements. Where a page holds the tile (or half of it), its rows are one run
// of memory.
template <int dim>
DEVICE void fetch_rows(const Fetch& f, u32 to, const u8* from, int lane) {
  constexpr int kRowBytes = CACHE_BYTES ? dim : dim * 2, kChunks = kRowBytes / 16;
  constexpr int kStride = (kChunks | 1) * 16;
  constexpr int kAll = kTile * kChunks / 32;  // copies of a lane
  constexpr bool kRuns = 32 % kChunks == 0 && PAGE * kChunks % 32 == 0;
  if (f.live) {
    const bool whole = f.token >= f.begin && f.token + kTile <= f.end;
    // Where a row begins; 8-bit pages have their scales between the heads.
    const auto row_at = [&](u32 row) {
      return from + (CACHE_SCALES ? u64(row / PAGE) * head_page_bytes<dim, PAGE>() + row % PAGE * kRowBytes
                                  : u64(row) * kRowBytes);
    };
    if (kRuns && whole) {
      constexpr int kCopies = PAGE >= kTile ? kAll : PAGE * kChunks / 32;  // per run
      const u32 lane_to = to + lane / kChunks * kStride + lane % kChunks * 16;
#pragma unroll
      for (int run = 0; run < kAll / kCopies; ++run) {
        const u32 first = PAGE >= kTile ? f.row : __shfl_sync(0xffffffffu, f.row, run * PAGE);
        const u8* at = row_at(first) + lane * 16;
#pragma unroll
        for (int i = 0; i < kCopies; ++i)
          copy16_async(lane_to + (run * kCopies + i) * (32 / kChunks) * kStride, at + i * 512);
      }
    } else {
#pragma unroll(kRuns ? 1 : kAll)
      for (int i = 0; i < kAll; ++i) {
        const int at = i * 32 + lane, row = at / kChunks, chunk = at % kChunks;
        const u32 source = PAGE >= kTile ? f.row + row : __shfl_sync(0xffffffffu, f.row, row);
        const bool valid = f.token + row >= f.begin && f.token + row < f.end;
        copy16_async(to + row * kStride + chunk * 16, row_at(source) + chunk * 16, valid);
      }
    }
    if (CACHE_SCALES) {
      // Runs of 16 tokens: dim / 16 chunks each. Those that no token owns may be anything: scores of such
      // keys are replaced, values' scales too (value_scales).
      constexpr int kRun = 16 * (dim / 32) * 2 / 16;
      if (lane < kTile / 16 * kRun) {
        const u32 first = PAGE >= kTile ? f.row + lane / kRun * 16 : 0;
        const u32 row = PAGE >= kTile ? first : __shfl_sync(__activemask(), f.row, lane / kRun * 16);
        copy16_async(to + kTile * kStride + lane * 16, from + u64(row / PAGE) * head_page_bytes<dim, PAGE>() +
                                                           PAGE * dim + row % PAGE * (dim / 32 * 2) +
                                                           lane % kRun * 16);
      }
    }
  }
  commit_copies();
}

// Codes become operands of products without a way through shared memory: the order of the elements within a
// product of 16 of them is free where keys and queries have the same, and so is which of the 16 sums is
// whose.
//   Keys: lane (g, t) has elements 4 t .. 4 t + 3 of tokens g and g + 8; queries likewise.
//   Values: pairs of codes are transposed as 16-bit elements; sum g is of element 2 g, sum g + 8 of 2 g + 1.
template <int dim>
DEVICE u32 scale_of(const u8* tile, int token, int block) {
  return *reinterpret_cast<const u16*>(tile + kTile * (dim / 16 | 1) * 16 + (token * (dim / 32) + block) * 2);
}
// Elements 16 k to 16 k + 15 of tokens m * 16 .. m * 16 + 15.
DEVICE void key_codes(u32 (&a)[4], const u8* tile, int m, int k, int g, int t) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = m * 16 + half * 8 + g;
    const u32 codes = *reinterpret_cast<const u32*>(tile + token * kCodeStrideK + k * 16 + t * 4);
    unpack_codes(codes, CACHE_SCALES ? scale_of<DIM_K>(tile, token, k / 2) * 0x10001u : 0, a[half],
                 a[half + 2]);
  }
}
// Scales of tokens `token` and the next, zeros for those outside of [begin, end).
DEVICE u32 value_scales(const u8* tile, int token, int block, int begin, int end) {
  const u32 low = token >= begin && token < end ? scale_of<DIM_V>(tile, token, block) : 0,
            high = token + 1 >= begin && token + 1 < end ? scale_of<DIM_V>(tile, token + 1, block) : 0;
  return low | high << 16;
}
// Elements 32 block .. 32 block + 31 of tokens m * 16 .. m * 16 + 15, for two products.
DEVICE void value_codes(u32 (&a)[2][4], const u8* tile, int m, int block, int begin, int end, int lane) {
  u32 codes[4];
  load_transposed(codes,
                  shared_address(tile) + (m * 16 + lane % 16) * kCodeStrideV + (block * 2 + lane / 16) * 16);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const u32 scales =
        CACHE_SCALES ? value_scales(tile, m * 16 + half * 8 + lane % 4 * 2, block, begin, end) : 0;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      unpack_codes(__byte_perm(codes[2 * i + half], 0, 0x3120), scales, a[i][2 * half], a[i][2 * half + 1]);
  }
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

// A sum of states: value v and weight sum of what exp2(logit - most) scales.
struct Joined {
  float4 v;
  float most, sum;
};
// shift: the state's largest logit less the joint one.
DEVICE void add_state(Joined& j, float4 v, float shift, float sum) {
  const float weight = exp2_approximate(shift);
  j.v.x += weight * v.x, j.v.y += weight * v.y, j.v.z += weight * v.z, j.v.w += weight * v.w;
  j.sum += weight * sum;
}
// Four elements of y of a row and head.
DEVICE void finish(Joined j, const DecodeRow* row, int q_head, int quad, bf16* y, i64 y_stride, float* lse,
                   const float* sinks) {
  if (SINKS) {
    const float sink = sinks[q_head] * LOG2E, largest = fmaxf(j.most, sink),
                shrink = exp2_approximate(j.most - largest);
    j.sum = j.sum * shrink + exp2_approximate(sink - largest), j.most = largest;
    j.v.x *= shrink, j.v.y *= shrink, j.v.z *= shrink, j.v.w *= shrink;
  }
  const float factor = j.sum > 0.f ? 1.f / j.sum : 0.f;
  const u64 pairs =
      u64(to_bf16x2(j.v.x * factor, j.v.y * factor)) | u64(to_bf16x2(j.v.z * factor, j.v.w * factor)) << 32;
  *reinterpret_cast<u64*>(y + row->q_row * y_stride + i64(q_head) * DIM_V + quad * 4) = pairs;
  if (lse && quad == 0) lse[i64(row->q_row) * kHeads + q_head] = (j.most + log2_approximate(j.sum)) * LN2;
}

// What the products and the join need of an item.
struct Item {
  int first_row, rows, token_begin, token_end, chunk, kv_head, slice;
};
DEVICE const DecodeRow* row_of(const DecodeRow* rows, const i32* list, const Item& item, int row) {
  return rows + (SHARED ? list[item.first_row + row] : item.first_row + row);
}
DEVICE Item read_item(const DecodeItem* items, int index) {
  const DecodeItem* item = items + index / (KV_HEADS * kSlices);
  return {item->first_row, item->rows,  item->token_begin,
          item->token_end, item->chunk, index % (KV_HEADS * kSlices) / kSlices,
          index % kSlices};
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    attention_decode(const bf16* q, i64 q_stride, bf16* y, i64 y_stride, const u8* cache_k, const u8* cache_v,
                     const u8* plan, const PlanHead* head, float* states, float* state_sums, float* lse,
                     const float* sinks, const float* slopes, float scale, float softcap) {
  extern __shared__ __align__(128) u8 shared[];
  __shared__ float warp_most[WARPS][VECTORS], warp_sum[WARPS][VECTORS];
  u8* const own_ring = shared + (threadIdx.x / 32) * (STAGES * kStageBytes);
  float* warp_out =  // [WARPS][JOINED][kOutStride]
      reinterpret_cast<float*>(shared + WARPS * STAGES * kStageBytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  u8* const queries = reinterpret_cast<u8*>(warp_out + WARPS * JOINED * kOutStride);  // if SHARED
  const int total = (SHARED ? head->shared_items : head->decode_items) * (KV_HEADS * kSlices);
  const auto* items =
      reinterpret_cast<const DecodeItem*>(plan + (SHARED ? head->shared_items_at : head->decode_items_at));
  const auto* list = reinterpret_cast<const i32*>(plan + head->shared_rows_at);
  const auto* masks = reinterpret_cast<const u32*>(plan + head->masks_at);
  const auto* rows = reinterpret_cast<const DecodeRow*>(plan + head->decode_rows_at);
  const auto* tables = reinterpret_cast<const i32*>(plan + head->tables_at);
  const u32 ring = shared_address(own_ring);
  const LogitRule rule = logit_rule(scale, softcap);
  bool waited = false;
  release_next();

  Fetch fetch{};
  read_ahead(fetch, blockIdx.x, total, items);
  open_item(fetch, blockIdx.x, total, items, warp);
  fetch.token -= kStep;
#pragma unroll 1
  for (int s = 0; s < STAGES; ++s) {
    next_tile(fetch, total, items, tables, warp, lane, waited);
    fetch_rows<DIM_K>(fetch, ring + s * kStageBytes, cache_k, lane);
    fetch_rows<DIM_V>(fetch, ring + s * kStageBytes + kTileK, cache_v, lane);
  }
  if (!waited) wait_for_previous();
  waited = true;

  u32 query[SHARED ? 1 : kN][DIM_K / 16][2];
  // Columns 2 t and 2 t + 1 of each product: their tokens, where a mask begins, and slopes. All rows of a
  // shared item see all its tokens.
  int first[kN][2], last[kN][2], open_end[kN][2], mask_at[kN][2];
  float slope[kN][2];
  const auto load_query = [&](const Item& item) {
    if (SHARED)
      for (int at = threadIdx.x; at < VECTORS * (DIM_K / 8); at += kThreads) {
        const int column = at / (DIM_K / 8), eight = at % (DIM_K / 8);
        const Vector v = vector_of(column, item.rows, item.slice);
        uint4 x = {0, 0, 0, 0};
        if (v.valid) {
          const bf16* from = q + row_of(rows, list, item, v.row)->q_row * q_stride +
                             (item.kv_head * GROUP + v.head) * DIM_K + eight * 8;
          x = *reinterpret_cast<const uint4*>(from);
          x = {query_pair(x.x), query_pair(x.y), query_pair(x.z), query_pair(x.w)};
        }
        u8* to = queries + column * kStrideQ;
        if (CACHE_BYTES) {  // elements 4 t .. 4 t + 3 where 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 are read
          to += eight / 2 * 32 + eight % 2 * 8;
          *reinterpret_cast<u64*>(to) = x.x | u64(x.z) << 32;
          *reinterpret_cast<u64*>(to + 16) = x.y | u64(x.w) << 32;
        } else {
          *reinterpret_cast<uint4*>(to + eight * 16) = x;
        }
      }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      if (!SHARED) {
        const Vector own = vector_of(n * 8 + g, item.rows, item.slice);
        const bf16* from = q;
        if (own.valid)
          from +=
              row_of(rows, list, item, own.row)->q_row * q_stride + (item.kv_head * GROUP + own.head) * DIM_K;
#pragma unroll
        for (int k = 0; k < DIM_K / 16; ++k)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int at = k * 16 + (CACHE_BYTES ? 4 * t + 2 * half : 2 * t + 8 * half);
            query[n % (SHARED ? 1 : kN)][k][half] = own.valid ? query_pair(load_pair(from + at)) : 0;
          }
      }
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const Vector v = vector_of(n * 8 + 2 * t + c, item.rows, item.slice);
        const DecodeRow* row = row_of(rows, list, item, v.valid ? v.row : 0);
        last[n][c] = v.valid ? row->position : 0x7fffffff;
        if (!SHARED) {
          first[n][c] = v.valid ? row->begin : 0;
          open_end[n][c] = v.valid ? min(row->position, row->mask_begin - 1) : 0x7fffffff;
          mask_at[n][c] = row->mask_at;
        }
        slope[n][c] = ALIBI && v.valid ? slopes[item.kv_head * GROUP + v.head] * LOG2E : 0.f;
      }
    }
  };

  // The next item is read while this one's tiles are computed, its queries before this one's states are
  // joined.
  int stage = 0;
  Item upcoming{};
  if (blockIdx.x < total) upcoming = read_item(items, blockIdx.x), load_query(upcoming);
  if (SHARED) __syncthreads();
#pragma unroll 1
  for (int index = blockIdx.x; index < total; index += gridDim.x) {
    const Item item = upcoming;
    const int next = index + gridDim.x;
    if (next < total) upcoming = read_item(items, next);
    const int token_begin = first_tile(item.token_begin, warp);
    float most[kN][2], sum[kN][2], out[DIM_V / 16][kN][4];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      most[n][0] = most[n][1] = -INFINITE, sum[n][0] = sum[n][1] = 0;
#pragma unroll
      for (int d = 0; d < DIM_V / 16; ++d)
#pragma unroll
        for (int c = 0; c < 4; ++c) out[d][n][c] = 0;
    }

#pragma unroll 1
    for (int token = token_begin; token < item.token_end; token += kStep) {
      const u32 tile_k = ring + stage * kStageBytes, tile_v = tile_k + kTileK;

      wait_copies<2 * STAGES - 1>();
      __syncwarp();
      const u8* const codes = own_ring + stage * kStageBytes;
      // Two chains of products, so that one's latency hides the other's.
      float s[2][kM][kN][4];
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int n = 0; n < kN; ++n)
#pragma unroll
            for (int c = 0; c < 4; ++c) s[half][m][n][c] = 0;
#pragma unroll
      for (int k = 0; k < DIM_K / 16; ++k)
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          u32 a[4];
          if (CACHE_BYTES)
            key_codes(a, codes, m, k, g, t);
          else
            load_matrices(a, tile_k + (m * 16 + lane % 16) * kStrideK + (k * 2 + lane / 16) * 16);
          if (SHARED) {
#pragma unroll
            for (int n = 0; n < kN; n += 2) {
              u32 b[4];
              load_matrices(b, shared_address(queries) + ((n + lane / 16) * 8 + lane % 8) * kStrideQ +
                                   (k * 2 + lane / 8 % 2) * 16);
              mma_pair(s[k % 2][m][n], a, b[0], b[1]);
              mma_pair(s[k % 2][m][n + 1], a, b[2], b[3]);
            }
          } else {
#pragma unroll
            for (int n = 0; n < kN; ++n)
              mma_pair(s[k % 2][m][n], a, query[n % (SHARED ? 1 : kN)][k][0],
                       query[n % (SHARED ? 1 : kN)][k][1]);
          }
        }
      __syncwarp();
      next_tile(fetch, total, items, tables, warp, lane, waited);
      fetch_rows<DIM_K>(fetch, tile_k, cache_k, lane);

      bool seen = true;
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          seen = seen && first[n][c] <= token && open_end[n][c] >= token + kTile - 1;
      const bool whole = SHARED || __all_sync(0xffffffffu, seen);

      u32 p[kM][kN][2];
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float x[2 * kM];
#pragma unroll
          for (int i = 0; i < 2 * kM; ++i) {
            const int at = token + i * 8 + g;
            const float score = s[0][i / 2][n][i % 2 * 2 + c] + s[1][i / 2][n][i % 2 * 2 + c];
            x[i] = comparable(rule, score, slope[n][c], at - last[n][c]);
            if (!whole &&
                (at < first[n][c] || at > last[n][c] || masked(masks, mask_at[n][c], open_end[n][c], at)))
              x[i] = -INFINITE;
          }
          float tile_most = fmaxf(x[0], x[1]);
          if (kM == 2) tile_most = fmaxf(tile_most, fmaxf(x[2 * kM - 2], x[2 * kM - 1]));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 4));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 8));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 16));
          const float next = fmaxf(most[n][c], largest_logit(rule, tile_most)),
                      base = next == -INFINITE ? 0.f : next;
          const float keep = exp2_approximate(most[n][c] - base);
          most[n][c] = next;
#pragma unroll
          for (int i = 0; i < 2 * kM; ++i)
            s[0][i / 2][n][i % 2 * 2 + c] = x[i] = probability(rule, x[i], base);
          float tile_sum = x[0] + x[1];
          if (kM == 2) tile_sum += x[2 * kM - 2] + x[2 * kM - 1];
          sum[n][c] = sum[n][c] * keep + tile_sum;
#pragma unroll
          for (int d = 0; d < DIM_V / 16; ++d) out[d][n][c] *= keep, out[d][n][c + 2] *= keep;
        }
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            p[m][n][h] = transpose(pack_pair(s[0][m][n][2 * h], s[0][m][n][2 * h + 1]));

      wait_copies<2 * STAGES - 1>();
      __syncwarp();
      u32 two[2][4];
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int d = 0; d < DIM_V / 16; ++d) {
          u32 a[4];
          if (CACHE_BYTES) {
            if (d % 2 == 0)
              value_codes(two, codes + kTileK, m, d / 2, item.token_begin - token, item.token_end - token,
                          lane);
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = two[d % 2][i];
          } else {
            load_transposed(
                a, tile_v + (m * 16 + lane / 16 * 8 + lane % 8) * kStrideV + (d * 2 + lane / 8 % 2) * 16);
          }
#pragma unroll
          for (int n = 0; n < kN; ++n) mma_pair(out[d][n], a, p[m][n][0], p[m][n][1]);
        }
      __syncwarp();
      fetch_rows<DIM_V>(fetch, tile_v, cache_v, lane);
      stage = stage + 1 == STAGES ? 0 : stage + 1;
    }

    if (!SHARED && next < total) load_query(upcoming);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      __syncthreads();  // the states before have been read, and the queries
      if (SHARED && pass == 0 && next < total) load_query(upcoming);
#pragma unroll
      for (int n = pass * (JOINED / 8); n < (pass + 1) * (JOINED / 8); ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float lanes = sum[n][c];
          lanes += __shfl_xor_sync(0xffffffffu, lanes, 4);
          lanes += __shfl_xor_sync(0xffffffffu, lanes, 8);
          lanes += __shfl_xor_sync(0xffffffffu, lanes, 16);
          const int column = n * 8 + 2 * t + c;
          if (g == 0) warp_most[warp][column] = most[n][c], warp_sum[warp][column] = lanes;
          constexpr int kApart = CACHE_BYTES ? 1 : 8;  // elements from sum g to sum g + 8
          float* to = warp_out + (warp * JOINED + column % JOINED) * kOutStride + (CACHE_BYTES ? 2 * g : g);
#pragma unroll
          for (int d = 0; d < DIM_V / 16; ++d)
            to[d * 16] = out[d][n][c], to[d * 16 + kApart] = out[d][n][c + 2];
        }
      __syncthreads();
#pragma unroll 1
      for (int at = threadIdx.x; at < JOINED * kQuads; at += kThreads) {
        const int column = pass * JOINED + at / kQuads, quad = at % kQuads;
        const Vector v = vector_of(column, item.rows, item.slice);
        if (!v.valid) continue;
        const DecodeRow* row = row_of(rows, list, item, v.row);
        if (u32(item.chunk - row->first_chunk) >= u32(row->parts))
          continue;  // the row sees nothing of the chunk
        Joined j{};
        j.most = warp_most[0][column];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) j.most = fmaxf(j.most, warp_most[w][column]);
        const float base = j.most == -INFINITE ? 0.f : j.most;  // a mask may hide all
#pragma unroll
        for (int w = 0; w < WARPS; ++w)
          add_state(j,
                    *reinterpret_cast<const float4*>(warp_out + (w * JOINED + column % JOINED) * kOutStride +
                                                     quad * 4),
                    warp_most[w][column] - base, warp_sum[w][column]);
        const int q_head = item.kv_head * GROUP + v.head;
        if (!SHARED && row->parts == 1) {
          finish(j, row, q_head, quad, y, y_stride, lse, sinks);
        } else {
          const i64 vector = i64(row->state_base + item.chunk) * kHeads + q_head;
          *reinterpret_cast<float4*>(states + vector * DIM_V + quad * 4) = j.v;
          if (quad == 0) state_sums[vector * 2] = j.most, state_sums[vector * 2 + 1] = j.sum;
        }
      }
    }
  }
  wait_copies<0>();
}
