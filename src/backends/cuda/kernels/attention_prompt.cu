// Attention of prompt rows over the paged cache, with mma.sync (sm_80 and later):
//   y[r, h] = sum_t p_t V[t] / sum_t p_t, p_t = exp(logit(scale q[r, h] . K[t])).
// A block takes ROWS query vectors (consecutive tokens, all heads of a KV head's group: vector v is token v /
// GROUP, head v % GROUP) and walks over all tiles of TILE tokens that any of them sees, in ascending order
// from a multiple of TILE; softmax is online (FlashAttention-2). A tile of which a vector sees nothing leaves
// its state as it is, bit for bit, so a row's result does not depend on what it shares the block with.
//
// Bound: the tensor cores, 4 * dim operations per pair; K and V come from the second-level cache (ROWS
// vectors per read). Each warp holds 16 vectors in registers; K and V are double-buffered in shared memory by
// asynchronous copies.
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
#ifndef WARPS
#define WARPS 8
#endif
#ifndef TILE
#define TILE 64
#endif
#ifndef CAUSAL
#define CAUSAL 1
#endif
#ifndef WINDOW
#define WINDOW 0  // 1: the parameter `window` counts
#endif
#ifndef CUSTOM_MASK
#define CUSTOM_MASK 0  // 1: rows may have masks of their own
#endif

constexpr int kThreads = WARPS * 32;
constexpr int kHeads = KV_HEADS * GROUP;
constexpr int kStrideK = (DIM_K / 8 | 1) * 16, kStrideV = (DIM_V / 8 | 1) * 16;
// Queries of large heads do not fit beside the sums: every lane reads its own operands back from shared
// memory.
constexpr bool kQueryShared = DIM_K > 128;
constexpr int kUnrollK = kQueryShared ? 2 : DIM_K / 16, kUnrollCopies = kQueryShared ? 1 : 64;
static_assert(DIM_K % 16 == 0 && DIM_V % 16 == 0 && TILE % 16 == 0 && GROUP <= WARPS * 16, "");

// Tokens [token, token + TILE) of a head to rows in shared memory, zeros outside of [begin, end). 16-bit rows
// are copied asynchronously; codes are unpacked on the way.
template <int dim>
DEVICE void fetch_tile(u32 to, u8* shared_to, const u8* from, const i32* table, int kv_head, int token,
                       int begin, int end) {
  constexpr int kStride = (dim / 8 | 1) * 16, kChunks = CACHE_BYTES ? dim / 16 : dim / 8,
                kCopies = TILE * kChunks;
#pragma unroll(kUnrollCopies)
  for (int i = 0; i < (kCopies + kThreads - 1) / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x, row = at / kChunks, chunk = at % kChunks;
    if (kCopies % kThreads == 0 || at < kCopies) {
      const int wanted = token + row, near = min(max(wanted, begin), end - 1), slot = near % PAGE;
      const u8* page = from + (i64(table[near / PAGE]) * KV_HEADS + kv_head) * head_page_bytes<dim, PAGE>();
      if (CACHE_BYTES) {
        uint4 first{}, second{};
        if (wanted == near)
          unpack_16(*reinterpret_cast<const uint4*>(page + slot * dim + chunk * 16),
                    CACHE_SCALES ? *reinterpret_cast<const u16*>(page + PAGE * dim +
                                                                 (slot * (dim / 32) + chunk / 2) * 2)
                                 : 0,
                    first, second);
        auto* y = reinterpret_cast<uint4*>(shared_to + row * kStride + chunk * 32);
        y[0] = first, y[1] = second;
      } else {
        copy16_async(to + row * kStride + chunk * 16, page + slot * (dim * 2) + chunk * 16, wanted == near);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    attention_prompt(const bf16* q, i64 q_stride, bf16* y, i64 y_stride, const u8* cache_k, const u8* cache_v,
                     const u8* plan, const PlanHead* head, float* lse, const float* sinks,
                     const float* slopes, float scale, float softcap, int window) {
  extern __shared__ __align__(128) u8 shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const u32 ring_k = shared_address(shared), ring_v = ring_k + 2 * TILE * kStrideK;
  uint4* own_query =
      reinterpret_cast<uint4*>(shared + 2 * TILE * (kStrideK + kStrideV)) + warp * (DIM_K / 16 * 32) + lane;
  const LogitRule rule = logit_rule(scale, softcap);
  release_next();
  wait_for_previous();
  const int total = head->prompt_items, workers = gridDim.x;
  const auto* items = reinterpret_cast<const PromptItem*>(plan + head->prompt_items_at);
  const auto* tables = reinterpret_cast<const i32*>(plan + head->tables_at);
  const auto* item_masks = reinterpret_cast<const PromptMask*>(plan + head->prompt_masks_at);
  const auto* masks = reinterpret_cast<const u32*>(plan + head->masks_at);

  // Items come costly ones first; dealing them forth and back evens out the blocks' sums.
#pragma unroll 1
  for (int round = 0; round * workers < total; ++round) {
    const int index = round * workers + (round % 2 ? workers - 1 - blockIdx.x : blockIdx.x);
    if (index >= total) continue;
    const PromptItem item = items[index];
    const i32* table = tables + item.table;
    const int tile_begin = item.token_begin / TILE * TILE;

    __syncthreads();
    fetch_tile<DIM_K>(ring_k, shared, cache_k, table, item.kv_head, tile_begin, item.token_begin,
                      item.token_end);
    commit_copies();
    fetch_tile<DIM_V>(ring_v, shared + 2 * TILE * kStrideK, cache_v, table, item.kv_head, tile_begin,
                      item.token_begin, item.token_end);
    commit_copies();

    // This thread's vectors: rows g and g + 8 of the warp's 16.
    u32 query[kQueryShared ? 1 : DIM_K / 16][4];
    int first[2], last[2], position[2], open_end[2], mask_at[2];
    float slope[2], most[2], sum[2];
    bool valid[2];
    const bf16* from[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int vector = warp * 16 + g + r * 8, row = vector / GROUP,
                q_head = item.kv_head * GROUP + vector % GROUP;
      valid[r] = row < item.rows;
      from[r] = q + (valid[r] ? (item.q_row + row) * q_stride + q_head * DIM_K : 0);
      position[r] = item.position + row;
      first[r] = WINDOW ? max(0, position[r] - window + 1) : 0;
      last[r] = CAUSAL ? position[r] : item.kv_len - 1;
      if (WINDOW && !CAUSAL) last[r] = min(last[r], position[r] + window - 1);
      last[r] = min(last[r], item.kv_len - 1);
      open_end[r] = last[r];
      if (CUSTOM_MASK && valid[r]) {
        const PromptMask m = item_masks[index];
        open_end[r] = min(last[r], m.begin - 1), mask_at[r] = m.at + row * m.words;
      }
      slope[r] = ALIBI && valid[r] ? slopes[q_head] * LOG2E : 0.f;
      most[r] = -INFINITE, sum[r] = 0;
    }
#pragma unroll
    for (int k = 0; k < DIM_K / 16; ++k) {
      u32 a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[i] = valid[i % 2] ? query_pair(load_pair(from[i % 2] + k * 16 + i / 2 * 8 + 2 * t)) : 0;
      if (kQueryShared) own_query[k * 32] = {a[0], a[1], a[2], a[3]};
#pragma unroll
      for (int i = 0; i < 4; ++i) query[kQueryShared ? 0 : k][i] = a[i];
    }
    float out[DIM_V / 8][4];
#pragma unroll
    for (int d = 0; d < DIM_V / 8; ++d)
#pragma unroll
      for (int c = 0; c < 4; ++c) out[d][c] = 0;

    int stage = 0;
#pragma unroll 1
    for (int token = tile_begin; token < item.token_end; token += TILE, stage ^= 1) {
      const u32 tile_k = ring_k + stage * TILE * kStrideK, tile_v = ring_v + stage * TILE * kStrideV;
      const bool more = token + TILE < item.token_end;

      wait_copies<1>();
      __syncthreads();
      if (more)
        fetch_tile<DIM_K>(ring_k + (stage ^ 1) * TILE * kStrideK, shared + (stage ^ 1) * TILE * kStrideK,
                          cache_k, table, item.kv_head, token + TILE, item.token_begin, item.token_end);
      commit_copies();

      float s[TILE / 8][4];
#pragma unroll
      for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) s[n][c] = 0;
#pragma unroll(kUnrollK)
      for (int k = 0; k < DIM_K / 16; ++k) {
        u32 a[4];
        if (kQueryShared) {
          const uint4 own = own_query[k * 32];
          a[0] = own.x, a[1] = own.y, a[2] = own.z, a[3] = own.w;
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i) a[i] = query[kQueryShared ? 0 : k][i];
        }
#pragma unroll
        for (int n = 0; n < TILE / 16; ++n) {
          u32 b[4];
          load_matrices(
              b, tile_k + (n * 16 + lane / 16 * 8 + lane % 8) * kStrideK + (k * 2 + lane / 8 % 2) * 16);
          mma_pair(s[2 * n], a, b[0], b[1]);
          mma_pair(s[2 * n + 1], a, b[2], b[3]);
        }
      }

      const bool whole =
          __all_sync(0xffffffffu, first[0] <= token && first[1] <= token && open_end[0] >= token + TILE - 1 &&
                                      open_end[1] >= token + TILE - 1);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float tile_most = -INFINITE;
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int at = token + n * 8 + 2 * t + c;
            float x = comparable(rule, s[n][2 * r + c], slope[r], at - position[r]);
            if (!whole && (at < first[r] || at > last[r] ||
                           (CUSTOM_MASK && masked(masks, mask_at[r], open_end[r], at))))
              x = -INFINITE;
            s[n][2 * r + c] = x;
            tile_most = fmaxf(tile_most, x);
          }
        tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 1));
        tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 2));
        const float next = fmaxf(most[r], largest_logit(rule, tile_most)),
                    base = next == -INFINITE ? 0.f : next;
        const float keep = exp2_approximate(most[r] - base);
        most[r] = next;
        float tile_sum = 0;
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
          for (int c = 0; c < 2; ++c) tile_sum += s[n][2 * r + c] = probability(rule, s[n][2 * r + c], base);
        sum[r] = sum[r] * keep + tile_sum;
#pragma unroll
        for (int d = 0; d < DIM_V / 8; ++d) out[d][2 * r] *= keep, out[d][2 * r + 1] *= keep;
      }

      wait_copies<1>();
      __syncthreads();
      if (more)
        fetch_tile<DIM_V>(ring_v + (stage ^ 1) * TILE * kStrideV,
                          shared + 2 * TILE * kStrideK + (stage ^ 1) * TILE * kStrideV, cache_v, table,
                          item.kv_head, token + TILE, item.token_begin, item.token_end);
      commit_copies();
#pragma unroll
      for (int k = 0; k < TILE / 16; ++k) {
        const u32 p[4] = {pack_pair(s[2 * k][0], s[2 * k][1]), pack_pair(s[2 * k][2], s[2 * k][3]),
                          pack_pair(s[2 * k + 1][0], s[2 * k + 1][1]),
                          pack_pair(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
        for (int d = 0; d < DIM_V / 16; ++d) {
          u32 b[4];
          load_transposed(
              b, tile_v + (k * 16 + lane / 8 % 2 * 8 + lane % 8) * kStrideV + (d * 2 + lane / 16) * 16);
          mma_pair(out[2 * d], p, b[0], b[1]);
          mma_pair(out[2 * d + 1], p, b[2], b[3]);
        }
      }
    }

#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int vector = warp * 16 + g + r * 8, row = vector / GROUP,
                q_head = item.kv_head * GROUP + vector % GROUP;
      float total_sum = sum[r];
      total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 1);
      total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 2);
      float largest = most[r], shrink = 1;
      if (SINKS && valid[r]) {
        const float sink = sinks[q_head] * LOG2E;
        largest = fmaxf(largest, sink);
        shrink = exp2_approximate(most[r] - largest);
        total_sum = total_sum * shrink + exp2_approximate(sink - largest);
      }
      const float factor = total_sum > 0.f ? shrink / total_sum : 0.f;
      if (!valid[r]) continue;
      if (lse && t == 0)
        lse[i64(item.q_row + row) * kHeads + q_head] = (largest + log2_approximate(total_sum)) * LN2;
      bf16* to = y + (item.q_row + row) * y_stride + i64(q_head) * DIM_V + 2 * t;
#pragma unroll
      for (int d = 0; d < DIM_V / 8; ++d)
        *reinterpret_cast<u32*>(to + d * 8) = to_bf16x2(out[d][2 * r] * factor, out[d][2 * r + 1] * factor);
    }
  }
}
