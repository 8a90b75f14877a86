// Attention of prompt rows over the paged cache on Hopper: the same function as attention_prompt.cu with
// wgmma, the tensor copy engine and roles for warpgroups (FlashAttention-3, Shah et al. 2024).
//
// One warpgroup only fetches: pages of K and V as boxes of a tensor map over all layers, into a ring of tiles
// with one barrier per tile and operand. Two others hold 64 query vectors each (vector v is token v / GROUP,
// head v % GROUP) in registers and take turns: while one's softmax runs, the other's products do; and each
// one's product of a tile with V runs beside its own softmax of the next tile. Tiles of 128 tokens come in
// ascending order from a multiple of 128; a tile of which a vector sees nothing leaves its state as it is,
// bit for bit.
//
// CLUSTER 2: two blocks take an item of 256 vectors together; each fetches half of every tile for both.
//
// Bound: the tensor cores, 4 * dim operations per pair. Heads of 64 or 128 elements, pages of 16 tokens or
// more.
#include "attention_logit.cuh"
#include "attention_records.cuh"
#include "hopper.cuh"

using namespace cairn::cuda;

#ifndef DIM
#define DIM 128
#define KV_HEADS 8
#define GROUP 4
#define PAGE 32
#endif
#ifndef CAUSAL
#define CAUSAL 1
#endif
#ifndef WINDOW
#define WINDOW 0
#endif
#ifndef STAGES
#define STAGES 2
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif

#if __CUDA_ARCH__ == 900 || defined(SIMULATED)

constexpr int kTile = 128;
constexpr int kConsumers = 2;
constexpr int kHeads = KV_HEADS * GROUP;
constexpr int kHalves = DIM / 64;  // a box is 64 elements wide: 128 bytes, the widest swizzle
constexpr int kHalfBytes = kTile * 128, kOperandBytes = kHalves * kHalfBytes;
constexpr int kBoxTokens = PAGE < kTile / CLUSTER ? PAGE : kTile / CLUSTER, kBoxes = kTile / kBoxTokens;
static_assert((DIM == 64 || DIM == 128) && PAGE >= 16 && GROUP <= 128, "");
// Barriers of the block: the turns of the consumers, then what a consumer's own warps meet at.
constexpr u32 kTurn = 1, kOwn = kTurn + kConsumers;

#if CACHE_FORM == 1
#define PRODUCT_TYPES "k16.f32.f16.f16"
#else
#define PRODUCT_TYPES "k16.f32.bf16.bf16"
#endif
#define PRODUCT(shape, registers, a0, a1, a2, a3, b_operand, flag, transposed, ...)                         \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " flag                                                     \
               ", 0;\n"                                                                                     \
               "wgmma.mma_async.sync.aligned." shape PRODUCT_TYPES " {" registers "}, {" a0 ", " a1 ", " a2 \
               ", " a3 "}, " b_operand ", p, 1, 1, " transposed ";\n}"                                      \
               : __VA_ARGS__                                                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))

#ifndef SIMULATED
// d[64, 128] (+)= a[64, 16] b, a in registers as attention_prompt.cu holds it; keys: b is [128 tokens][16 of
// DIM].
DEVICE void multiply_keys(float (&d)[64], const u32 (&a)[4], u64 b, u32 accumulate) {
  PRODUCT("m64n128", WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63, "%64", "%65", "%66", "%67", "%68",
          "%69", "0", WGMMA_OUT32(0), WGMMA_OUT32(32));
}
// d[64, DIM] += a[64, 16] b; values: b is [16 tokens][DIM], elements of a token side by side.
DEVICE void multiply_values(float (&d)[64], const u32 (&a)[4], u64 b) {
  const u32 accumulate = 1;
  PRODUCT("m64n128", WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63, "%64", "%65", "%66", "%67", "%68",
          "%69", "1", WGMMA_OUT32(0), WGMMA_OUT32(32));
}
DEVICE void multiply_values(float (&d)[32], const u32 (&a)[4], u64 b) {
  const u32 accumulate = 1;
  PRODUCT("m64n64", WGMMA_REGISTERS_0_31, "%32", "%33", "%34", "%35", "%36", "%37", "1", WGMMA_OUT32(0));
}
// The compiler may not move uses of these registers over this point.
template <int n>
DEVICE void pin(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int n>
DEVICE void pin(u32 (&p)[n][4]) {
#pragma unroll
  for (int i = 0; i < n; ++i)
#pragma unroll
    for (int c = 0; c < 4; ++c) asm volatile("" : "+r"(p[i][c])::"memory");
}
DEVICE void clear16(u32 address) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(address), "r"(0) : "memory");
}
// Arrives at a barrier of the block without waiting.
DEVICE void arrive(u32 id, u32 threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
#endif

// Values in shared memory: 64 elements of a token in a row of 128 bytes, eight tokens further at 1024, the
// next 64 elements at kHalfBytes.
DEVICE u64 value_descriptor(u32 address) {
  return u64((address & 0x3ffff) >> 4) | u64(kHalfBytes >> 4) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}

DEVICE int dealt(int round, int workers) {
  const int worker = int(blockIdx.x) / CLUSTER;
  return round * workers + (round % 2 ? workers - 1 - worker : worker);
}
// A consumer has read its block's tile, which the blocks of the cluster fill again together.
DEVICE void release_tile(u32 barrier) {
  if (CLUSTER == 1) {
    barrier_arrive(barrier);
  } else {
    for (int rank = 0; rank < CLUSTER; ++rank) barrier_arrive_at(barrier, rank);
  }
}

struct Rows {
  int first[2], last[2], position[2];
  float slope[2];
  bool valid[2];
};

extern "C" __global__ void __launch_bounds__(128 * (kConsumers + 1), 1)
    attention_prompt(const bf16* q, i64 q_stride, bf16* y, i64 y_stride,
                     const __grid_constant__ TensorMap map_k, const __grid_constant__ TensorMap map_v,
                     i64 first_row, const u8* plan, const PlanHead* head, float* lse, const float* sinks,
                     const float* slopes, float scale, float softcap, int window) {
  extern __shared__ __align__(1024) u8 shared[];
  __shared__ __align__(8) u64 barriers[4 * STAGES];
  const u32 ring = shared_address(shared);  // [stage][K, V][half][token][64]
  const u32 full = shared_address(barriers), empty = full + 2 * STAGES * 8;
  const auto full_k = [&](int stage) { return full + u32(stage) * 16; };
  const auto full_v = [&](int stage) { return full + u32(stage) * 16 + 8; };
  const auto empty_k = [&](int stage) { return empty + u32(stage) * 16; };
  const auto empty_v = [&](int stage) { return empty + u32(stage) * 16 + 8; };
  const auto* items = reinterpret_cast<const PromptItem*>(plan + head->prompt_items_at);
  const auto* tables = reinterpret_cast<const i32*>(plan + head->tables_at);
  const int total = head->prompt_items, workers = gridDim.x / CLUSTER;
  const int rank = CLUSTER > 1 ? int(cluster_rank()) : 0;

  release_next();
  if (threadIdx.x == 0) {
    prefetch_map(&map_k), prefetch_map(&map_v);
    for (int s = 0; s < 2 * STAGES; ++s) {
      barrier_init(full + s * 8, 1);
      barrier_init(empty + s * 8, kConsumers * CLUSTER);
    }
    barriers_ready();
  }
  if (CLUSTER > 1)
    cluster_meet();
  else
    __syncthreads();
  wait_for_previous();

  const int group = threadIdx.x / 128;
  if (group == 0) {
    shrink_registers<24>();
    if (threadIdx.x >= 32) return;
    const int lane = threadIdx.x;
    int stage = 0;
    u32 phase = 1;  // the first pass over the ring finds it empty
#pragma unroll 1
    for (int round = 0; round * workers < total; ++round) {
      const int index = dealt(round, workers);
      if (index >= total) continue;
      const PromptItem item = items[index];
      const i32* table = tables + item.table;
#pragma unroll 1
      for (int token = item.token_begin / kTile * kTile; token < item.token_end; token += kTile) {
        // Pages beyond the sequence are left out; consumers clear what they would multiply with 0.
        const int boxes = min(kBoxes, (item.kv_len - token + kBoxTokens - 1) / kBoxTokens);
        i32 row = 0;
        if (lane < boxes) {
          const int at = token + lane * kBoxTokens;
          row = i32(first_row + (i64(table[at / PAGE]) * KV_HEADS + item.kv_head) * PAGE + at % PAGE);
        }
#pragma unroll
        for (int operand = 0; operand < 2; ++operand) {
          const u32 ready = operand ? full_v(stage) : full_k(stage);
          const u32 to = ring + u32(stage * 2 + operand) * kOperandBytes;
          barrier_wait(operand ? empty_v(stage) : empty_k(stage), phase);
          if (lane == 0) barrier_expect(ready, u32(boxes) * kHalves * kBoxTokens * 128);
          __syncwarp();
          if (lane < boxes && lane % CLUSTER == rank) {
#pragma unroll
            for (int half = 0; half < kHalves; ++half) {
              const u32 at = to + half * kHalfBytes + lane * kBoxTokens * 128;
              if (CLUSTER > 1)
                load_box_for((1 << CLUSTER) - 1, at, operand ? &map_v : &map_k, half * 64, row, ready);
              else
                load_box(at, operand ? &map_v : &map_k, half * 64, row, ready);
            }
          }
        }
        if (++stage == STAGES) stage = 0, phase ^= 1;
      }
    }
  } else {
    grow_registers<240>();
    const int consumer = group - 1, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const int g = lane / 4, t = lane % 4;
    const LogitRule rule = logit_rule(scale, softcap);
    const u32 own_turn = kTurn + consumer, other_turn = kTurn + (consumer ^ 1);
    if (consumer == 0) arrive(own_turn, 256);
    int stage = 0;
    u32 phase = 0;

    u32 query[DIM / 16][4];
    Rows rows;
    const auto open = [&](const PromptItem& item) {
      const bf16* from[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int vector = (rank * kConsumers + consumer) * 64 + warp * 16 + g + r * 8, row = vector / GROUP;
        const int q_head = item.kv_head * GROUP + vector % GROUP;
        rows.valid[r] = row < item.rows;
        from[r] = q + (rows.valid[r] ? (item.q_row + row) * q_stride + q_head * DIM : 0);
        rows.position[r] = item.position + row;
        rows.first[r] = WINDOW ? max(0, rows.position[r] - window + 1) : 0;
        rows.last[r] = CAUSAL ? rows.position[r] : item.kv_len - 1;
        if (WINDOW && !CAUSAL) rows.last[r] = min(rows.last[r], rows.position[r] + window - 1);
        rows.last[r] = min(rows.last[r], item.kv_len - 1);
        rows.slope[r] = ALIBI && rows.valid[r] ? slopes[q_head] * LOG2E : 0.f;
      }
#pragma unroll
      for (int k = 0; k < DIM / 16; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          query[k][i] =
              rows.valid[i % 2] ? query_pair(load_pair(from[i % 2] + k * 16 + i / 2 * 8 + 2 * t)) : 0;
    };
    int index = dealt(0, workers);
    if (index < total) open(items[index]);

#pragma unroll 1
    for (int round = 0; round * workers < total; ++round) {
      index = dealt(round, workers);
      if (index >= total) continue;
      const PromptItem item = items[index];
      float s[64], out[DIM / 2], most[2], sum[2];
      u32 p[kTile / 16][4];
#pragma unroll
      for (int i = 0; i < DIM / 2; ++i) out[i] = 0;
      most[0] = most[1] = -INFINITE, sum[0] = sum[1] = 0;

      const auto multiply_q_k = [&](int at) {
        const u32 tile = ring + u32(at * 2) * kOperandBytes;
#pragma unroll
        for (int k = 0; k < DIM / 16; ++k)
          multiply_keys(s, query[k], tile_descriptor(tile + k / 4 * kHalfBytes) + k % 4 * 2, k > 0);
      };
      const auto multiply_p_v = [&](int at) {
        const u32 tile = ring + u32(at * 2 + 1) * kOperandBytes;
#pragma unroll
        for (int k = 0; k < kTile / 16; ++k)
          multiply_values(out, p[k], value_descriptor(tile) + k * (2048 >> 4));
      };
      // Scores of a tile to probabilities, in place; keep: the factor of everything before.
      const auto softmax = [&](int token, float(&keep)[2]) {
        const bool whole = rows.first[0] <= token && rows.first[1] <= token &&
                           rows.last[0] >= token + kTile - 1 && rows.last[1] >= token + kTile - 1;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (!kPlainLogit || !whole) {
#pragma unroll
            for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
              for (int c = 0; c < 2; ++c) {
                const int at = token + n * 8 + 2 * t + c;
                float x = comparable(rule, s[4 * n + 2 * r + c], rows.slope[r], at - rows.position[r]);
                if (at < rows.first[r] || at > rows.last[r]) x = -INFINITE;
                s[4 * n + 2 * r + c] = x;
              }
          }
          float tile_most = s[2 * r];
#pragma unroll
          for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c) tile_most = fmaxf(tile_most, s[4 * n + 2 * r + c]);
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 1));
          tile_most = fmaxf(tile_most, __shfl_xor_sync(0xffffffffu, tile_most, 2));
          const float next = fmaxf(most[r], largest_logit(rule, tile_most)),
                      base = next == -INFINITE ? 0.f : next;
          keep[r] = exp2_approximate(most[r] - base);
          most[r] = next;
          float tile_sum = 0;
#pragma unroll
          for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c)
              tile_sum += s[4 * n + 2 * r + c] = probability(rule, s[4 * n + 2 * r + c], base);
          sum[r] = sum[r] * keep[r] + tile_sum;
        }
      };
      const auto pack = [&] {
#pragma unroll
        for (int k = 0; k < kTile / 16; ++k)
#pragma unroll
          for (int i = 0; i < 4; ++i) p[k][i] = pack_pair(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
      };

      int token = item.token_begin / kTile * kTile;
      float keep[2];
      barrier_wait(full_k(stage), phase);
      wgmma_begin();
      multiply_q_k(stage);
      wgmma_commit();
      wgmma_wait<0>();
      pin(s);
      if (thread == 0) release_tile(empty_k(stage));
      softmax(token, keep);
      pack();

#pragma unroll 1
      for (token += kTile; token < item.token_end; token += kTile) {
        const int before = stage;
        const u32 before_phase = phase;
        if (++stage == STAGES) stage = 0, phase ^= 1;
        barrier_wait(full_k(stage), phase);
        meet(own_turn, 256);
        pin(out), pin(p);
        wgmma_begin();
        multiply_q_k(stage);
        wgmma_commit();
        barrier_wait(full_v(before), before_phase);
        wgmma_begin();
        multiply_p_v(before);
        wgmma_commit();
        arrive(other_turn, 256);
        wgmma_wait<1>();
        pin(s);
        if (thread == 0) release_tile(empty_k(stage));
        softmax(token, keep);
        wgmma_wait<0>();
        pin(out), pin(p);
        if (thread == 0) release_tile(empty_v(before));
#pragma unroll
        for (int i = 0; i < DIM / 2; ++i) out[i] *= keep[i / 2 % 2];
        pack();
      }
      const Rows written = rows;
      const int next = dealt(round + 1, workers);
      barrier_wait(full_v(stage), phase);
      if (token > item.kv_len) {
        // Rows of V that no token owns may hold anything, NaN too; their probabilities are 0, but 0 NaN is
        // not.
        const u32 tile = ring + u32(stage * 2 + 1) * kOperandBytes;
        for (int i = (item.kv_len - (token - kTile)) * 8 + thread; i < kTile * 8; i += 128)
#pragma unroll
          for (int half = 0; half < kHalves; ++half) clear16(tile + half * kHalfBytes + i * 16);
        publish_shared();
        meet(kOwn + consumer, 128);
      }
      pin(out), pin(p);
      wgmma_begin();
      multiply_p_v(stage);
      wgmma_commit();
      if (next < total) open(items[next]);
      wgmma_wait<0>();
      pin(out);
      if (thread == 0) release_tile(empty_v(stage));
      if (++stage == STAGES) stage = 0, phase ^= 1;

#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int vector = (rank * kConsumers + consumer) * 64 + warp * 16 + g + r * 8, row = vector / GROUP;
        const int q_head = item.kv_head * GROUP + vector % GROUP;
        float total_sum = sum[r];
        total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 1);
        total_sum += __shfl_xor_sync(0xffffffffu, total_sum, 2);
        float largest = most[r], shrink = 1;
        if (SINKS && written.valid[r]) {
          const float sink = sinks[q_head] * LOG2E;
          largest = fmaxf(largest, sink);
          shrink = exp2_approximate(most[r] - largest);
          total_sum = total_sum * shrink + exp2_approximate(sink - largest);
        }
        const float factor = total_sum > 0.f ? shrink / total_sum : 0.f;
        if (!written.valid[r]) continue;
        if (lse && t == 0)
          lse[i64(item.q_row + row) * kHeads + q_head] = (largest + log2_approximate(total_sum)) * LN2;
        bf16* to = y + (item.q_row + row) * y_stride + i64(q_head) * DIM + 2 * t;
#pragma unroll
        for (int d = 0; d < DIM / 8; ++d)
          *reinterpret_cast<u32*>(to + d * 8) =
              to_bf16x2(out[4 * d + 2 * r] * factor, out[4 * d + 2 * r + 1] * factor);
      }
    }
  }
  // No block leaves while another one may still fill its tiles or arrive at its barriers.
  if (CLUSTER > 1) cluster_meet();
}

#endif
