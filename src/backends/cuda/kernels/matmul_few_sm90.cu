// y = x w^T for rows that extend answers, on sm_90a: 1 to 64 rows (more: in passes of 64), weights in blocks.
//
// wgmma with the weights as its left operand: 64 rows of the weights by TOKENS rows of x. A consumer warp
// brings its 16 rows of weights by itself (bulk copies into a ring of its own), and makes bf16 of them in
// registers, where the matrix units take them. The last four warps bring x, which all share: they put each
// row's columns in the order in which a lane holds codes, as the units want them in shared memory.
//
// Order of sums: K is cut into CLUSTER parts of whole chunks, by the shape of the weights; a part is summed
// in one accumulator, 16 columns a product, ascending; parts are added in order. Weights are few_value() of
// weights.h.
//
// Bound: latency (3,100 cycles for 256 columns at 8 rows of x, 6,000 at 64; the matrix units alone: 2,048).
// Reference: double on the CPU (matmul_few_gpu_test.cpp).
//
// Macros: FORM_* (weight_forms.cuh, blocks); TOKEN_TILES: of 8 rows of x; WARPGROUPS: of 64 rows of weights;
// CLUSTER: blocks side by side along K; STAGES: chunks of a warp's weights; X_STAGES: chunks of x; GATED.
#include "hopper.cuh"
#define CAIRN_SHARED_ADDRESS
#include "few_rows.cuh"

constexpr int kTokens = 8 * TOKEN_TILES;
constexpr int kWarps = 4 * WARPGROUPS, kConsumers = 32 * kWarps, kThreads = kConsumers + 128;
constexpr int kChunk = form::kChunk, kSteps = form::kSteps, kGroupBytes = form::kBlockBytes;
constexpr int kWeightStage = 2 * kGroupBytes;
constexpr int kXStage = kChunk * 2 * kTokens;
constexpr int kScaledBytes = 2 * form::kScaledGroupBytes;
constexpr int kWeightsBegin = X_STAGES * kXStage,
              kScaledBegin = kWeightsBegin + kWarps * STAGES * kWeightStage;
constexpr int kTileGroups = 2 * kWarps, kTileRows = 8 * kTileGroups;
constexpr int kPartialStride = kTileRows + 4;
constexpr int kSums = kTokens / 2;  // of a thread
// 96 registers a thread are what there is; those who bring x need fewer.
constexpr bool kDealt = WARPGROUPS == 4 && TOKEN_TILES == 8;
static_assert(form::kBlocks, "weights in blocks");
static_assert(kWeightStage % 16 == 0, "bulk copies");

DEVICE void bulk_copy(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// A tile of x: core matrices of 8 rows by 16 bytes of K, those of a product of 16 columns side by side.
DEVICE u64 x_descriptor(u32 address) {
  return u64((address & 0x3ffff) >> 4) | u64((TOKEN_TILES * 128) >> 4) << 16 | u64(128 >> 4) << 32;
}

DEVICE void multiply(float (&d)[kSums], u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
#if TOKEN_TILES == 1
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, "
      "0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#elif TOKEN_TILES == 2
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, "
      "{%8, %9, %10, %11}, %12, 1, 1, 1, 0;"
      : WGMMA_OUT8(0)
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#elif TOKEN_TILES == 4
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" WGMMA_REGISTERS_0_15
               "}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
               : WGMMA_OUT8(0), WGMMA_OUT8(8)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#else
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_REGISTERS_0_31
               "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
               : WGMMA_OUT32(0)
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
#endif
}

DEVICE float load_from_block(const float* p, u32 rank) {
  float v;
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(p)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
  return v;
}
DEVICE float sum_of_parts(const float* partials, int token, int row) {
  const float* at = partials + token * kPartialStride + row;
  float values[CLUSTER];
#pragma unroll
  for (int i = 0; i < CLUSTER; ++i) values[i] = load_from_block(at, i);
  float sum = values[0];
#pragma unroll
  for (int i = 1; i < CLUSTER; ++i) sum += values[i];
  return sum + 0.f;
}

// What a consumer warp knows while it multiplies.
struct Warp {
  float d[kSums];
  u32 x_empty_before;  // the barrier of the chunk before this one, or 0
  int lane;
};

// Step j of a section.
template <int j>
DEVICE void step_products(Warp& w, const form::Codes (&codes)[2], const u8* scaled, u32 x, int section) {
  const int step = section * 4 + j;
  const uint4 a = form::scaled_step<j>(codes[0], form::load_scaled(scaled, step, w.lane >> 2));
  const uint4 b =
      form::scaled_step<j>(codes[1], form::load_scaled(scaled + form::kScaledGroupBytes, step, w.lane >> 2));
  const u64 at = x_descriptor(x + step * (4 * TOKEN_TILES * 128));
  wgmma_begin();
  multiply(w.d, a.x, b.x, a.y, b.y, at);
  multiply(w.d, a.z, b.z, a.w, b.w, at + ((2 * TOKEN_TILES * 128) >> 4));
  wgmma_commit();
  wgmma_wait<1>();
  if (j == 0 && w.x_empty_before != 0) {  // the chunk before this one has been multiplied
    if (w.lane == 0) barrier_arrive(w.x_empty_before);
    w.x_empty_before = 0;
  }
}

// grid: (CLUSTER * blocks among which tiles are divided, passes of kTokens rows of x)
extern "C" __global__ void __launch_bounds__(kThreads, 1) matmul_few(const __grid_constant__ Arguments p) {
  extern __shared__ __align__(1024) u8 shared[];
  __shared__ __align__(8) u64 barriers[2 * X_STAGES + kWarps * STAGES];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 base = shared_address(shared), x_full = shared_address(barriers), x_empty = x_full + 8 * X_STAGES,
            w_full = x_empty + 8 * X_STAGES + 8 * (warp * STAGES);
  const u32 my_weights = base + kWeightsBegin + warp * (STAGES * kWeightStage);
  const int part = CLUSTER > 1 ? int(cluster_rank()) : 0;
  const int blocks = gridDim.x / CLUSTER, block = blockIdx.x / CLUSTER;
  const int per_part = (p.chunks + CLUSTER - 1) / CLUSTER, first_chunk = min(part * per_part, p.chunks),
            chunks = min(per_part, p.chunks - first_chunk);
  const int all_tiles = (p.groups + kTileGroups - 1) / kTileGroups;
  const int tiles = block < all_tiles ? (all_tiles - 1 - block) / blocks + 1 : 0;

  // Weights to be copied next, by lane 0 of a consumer.
  int copy_tile = 0, copy_chunk = 0;
  const u8* from[2] = {};
  const auto find = [&](int tile) {
    const int group = (block + tile * blocks) * kTileGroups + 2 * warp;
#pragma unroll
    for (int q = 0; q < 2; ++q)
      from[q] = group + q < p.groups ? place_of(p, group + q, 0, kGroupBytes) + i64(first_chunk) * kGroupBytes
                                     : nullptr;
  };
  const auto copy_weights = [&](int slot) {
    if (CLUSTER > 1 ? copy_chunk >= chunks : copy_tile >= tiles || chunks == 0) return;
    if (copy_chunk == 0) find(copy_tile);
    const u32 to = my_weights + slot * kWeightStage, done = w_full + 8 * slot;
    barrier_expect(done, (from[0] ? kGroupBytes : 0) + (from[1] ? kGroupBytes : 0));
    if (from[0]) bulk_copy(to, from[0], kGroupBytes, done), from[0] += kGroupBytes;
    if (from[1]) bulk_copy(to + kGroupBytes, from[1], kGroupBytes, done), from[1] += kGroupBytes;
    if (++copy_chunk == chunks && CLUSTER == 1) copy_chunk = 0, ++copy_tile;  // a cluster has one tile
  };
  if (threadIdx.x == 0)
    for (int s = 0; s < X_STAGES; ++s) barrier_init(x_full + 8 * s, 4), barrier_init(x_empty + 8 * s, kWarps);
  if (warp < kWarps && lane == 0) {
    for (int s = 0; s < STAGES; ++s) barrier_init(w_full + 8 * s, 1);
    barriers_ready();
    for (int s = 0; s < STAGES; ++s) copy_weights(s);
  }
  __syncthreads();
  begin_after_previous(p);
  const int first_row = int(blockIdx.y) * kTokens, count = min(p.m - first_row, kTokens);

  Warp w;
  w.lane = lane, w.x_empty_before = 0;
  if (warp >= kWarps) {
    if constexpr (kDealt) shrink_registers<64>();
    // 8 rows of x by 32 columns at a time, 16 bytes a lane.
    constexpr int kTasks = TOKEN_TILES * kSteps / 4,
                  kBatch = kTasks <= 4 ? kTasks : kTasks / 2;  // of a warp and chunk
    const int loader = warp - kWarps, row = lane >> 2, v = lane & 3;
    const u8* const x = reinterpret_cast<const u8*>(p.x + i64(first_row) * p.cols);
    int slot = 0;
    u32 parity = 1;
    for (int tile = 0; tile < tiles; ++tile)
#pragma unroll 1
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const u32 to = base + slot * kXStage + row * 16;
#pragma unroll 1
        for (int first = 0; first < kTasks; first += kBatch) {
          uint4 values[kBatch];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            const int task = (first + i) * 4 + loader, n = task % TOKEN_TILES, s = task / TOKEN_TILES;
            const int column = (first_chunk + chunk) * kChunk + s * 32 + v * 8;
            values[i] = make_uint4(0, 0, 0, 0);
            if (n * 8 + row < count && column < int(p.cols))
              values[i] =
                  load_far(reinterpret_cast<const uint4*>(x + (n * 8 + row) * (p.cols * 2) + column * 2));
          }
          if (first == 0) barrier_wait(x_empty + 8 * slot, parity);
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            const int task = (first + i) * 4 + loader, n = task % TOKEN_TILES, s = task / TOKEN_TILES;
            const u32 at = to + (s * 4 * TOKEN_TILES + n) * 128;
            const u32 words[4] = {values[i].x, values[i].y, values[i].z, values[i].w};
#pragma unroll
            for (int q = 0; q < 4; ++q) {
              const int core = form::kHalfSteps ? 2 * (v >> 1) + (q & 1) : q;
              const int t = form::kHalfSteps ? 2 * (v & 1) + (q >> 1) : v;
              asm volatile("st.shared.b32 [%0], %1;" ::"r"(at + core * (TOKEN_TILES * 128) + 4 * t),
                           "r"(words[q])
                           : "memory");
            }
          }
        }
        publish_shared();
        __syncwarp();
        if (lane == 0) barrier_arrive(x_full + 8 * slot);
        if (++slot == X_STAGES) slot = 0, parity ^= 1;
      }
    return;
  }
  if constexpr (kDealt) grow_registers<104>();
  {
    const u8* const weights = shared + kWeightsBegin + warp * (STAGES * kWeightStage);
    u8* const scaled = shared + kScaledBegin + warp * kScaledBytes;
    int slot = 0, x_slot = 0;
    u32 parity = 0, x_parity = 0;
    for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) w.d[i] = 0;
#pragma unroll 1
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const u8* const block_weights = weights + slot * kWeightStage;
        barrier_wait(w_full + 8 * slot, parity);
#pragma unroll
        for (int q = 0; q < 2; ++q)
          form::make_scaled(block_weights + q * kGroupBytes, scaled + q * form::kScaledGroupBytes, lane);
        __syncwarp();
        barrier_wait(x_full + 8 * x_slot, x_parity);
        const u32 x = base + x_slot * kXStage;
#pragma unroll 1
        for (int section = 0; section < kChunk / 128; ++section) {
          const form::Codes codes[2] = {form::load_codes(block_weights, section, lane),
                                        form::load_codes(block_weights + kGroupBytes, section, lane)};
          step_products<0>(w, codes, scaled, x, section);
          step_products<1>(w, codes, scaled, x, section);
          step_products<2>(w, codes, scaled, x, section);
          step_products<3>(w, codes, scaled, x, section);
        }
        w.x_empty_before = x_empty + 8 * x_slot;
        __syncwarp();
        if (lane == 0) copy_weights(slot);
        if (++slot == STAGES) slot = 0, parity ^= 1;
        if (++x_slot == X_STAGES) x_slot = 0, x_parity ^= 1;
      }
      wgmma_wait<0>();
      if (w.x_empty_before != 0 && lane == 0) barrier_arrive(w.x_empty_before);
      w.x_empty_before = 0;
      if constexpr (CLUSTER == 1) {  // a thread has rows of two neighbouring groups
        const int group = (block + tile * blocks) * kTileGroups + 2 * warp;
#pragma unroll
        for (int i = 0; i < kSums; i += 4)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int token = 2 * i + 2 * (lane & 3) + e;
            const float first = w.d[i + e] * form::kSumScale + 0.f,
                        second = w.d[i + 2 + e] * form::kSumScale + 0.f;
            if (token >= count || group >= p.groups) continue;
            write_output(p, group, lane >> 2, first_row + token, first, second);
            if (!GATED && group + 1 < p.groups)
              write_output(p, group + 1, lane >> 2, first_row + token, second, 0);
          }
      }
    }
  }
  if constexpr (CLUSTER > 1) {
    float* const partials = reinterpret_cast<float*>(shared);
    meet(1, kConsumers);  // over the pipeline
    {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        const int token = 8 * (i / 4) + 2 * (lane & 3) + (i & 1),
                  row = warp * 16 + (lane >> 2) + 8 * (i / 2 % 2);
        partials[token * kPartialStride + row] = w.d[i] * form::kSumScale;
      }
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
    constexpr int kOutputs = GATED ? kTileRows / 2 : kTileRows;
    for (int i = part * kConsumers + int(threadIdx.x); i < count * kOutputs; i += kConsumers * CLUSTER) {
      const int token = i / kOutputs, output = i % kOutputs;
      const int row = GATED ? (output / 8) * 16 + output % 8 : output, group = block * kTileGroups + row / 8;
      if (group >= p.groups) continue;
      const float v = sum_of_parts(partials, token, row);
      float up = 0;
      if constexpr (GATED) up = sum_of_parts(partials, token, row + 8);
      write_output(p, group, row % 8, first_row + token, v, up);
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
  }
  end_after_previous(p);
}
