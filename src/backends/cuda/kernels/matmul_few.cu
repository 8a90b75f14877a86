// y = x w^T for rows that extend answers: 1 to 64 rows (more: in passes of 64), any form of weights.
//
// Every weight is read once, as the A operand (16 weight rows) of m16n8k16; the rows of x are B, 8 to a
// product. A warp keeps STAGES - 1 chunks of weights on their way into shared memory (cp.async), across the
// tiles of its block, and fills them before it waits for the kernel that makes x.
//
// Order of sums, the same for every tiling: K is cut into PARTS parts of whole chunks; a part is summed by
// one warp, 16 columns a product, ascending; parts are added in order. Packed weights become bf16 on their
// way to the tensor cores (form::scaled_step): few_value() of weights.h is what is multiplied.
//
// Bound: device memory up to about 32 rows; then the tensor cores.
// Reference: double on the CPU (matmul_few_gpu_test.cpp).
//
// Macros: FORM_* (weight_forms.cuh); ROW_TILES: of 16 rows, per warp; TOKEN_TILES: of 8 rows of x; K_WARPS *
// CLUSTER = 8 parts of K side by side, or K_WARPS = CLUSTER = 1, one after the other; ROW_WARPS: warps side
// by side along rows; STAGES; GATED; ONE_TOKEN: m is 1; EXPERTS: row i of y is x row i / x_share times the
// piece chosen[i] of the weights; MIN_BLOCKS per multiprocessor.
#include "few_rows.cuh"

constexpr int kParts = PARTS;  // of K; the same for every tiling of a form
constexpr int kWarps = K_WARPS * ROW_WARPS, kThreads = 32 * kWarps;
constexpr bool kInSequence = K_WARPS * CLUSTER == 1;
static_assert(kInSequence || K_WARPS * CLUSTER == kParts, "a warp sums one part, or all");
static_assert(!ONE_TOKEN || TOKEN_TILES == 1, "one row of x is one tile");

constexpr int kGroups = 2 * ROW_TILES;  // groups of 8 rows in a warp's tile
constexpr int kTokens = 8 * TOKEN_TILES;
constexpr int kChunk = form::kChunk, kSteps = form::kSteps;
constexpr int kGroupBytes = form::kBlocks ? form::kBlockBytes : 8 * kChunk * 2;  // 8 rows of a chunk
constexpr int kWeightStage = kGroups * kGroupBytes;
constexpr int kXTile = 8 * kChunk * 2;
constexpr int kXStage = ONE_TOKEN ? kChunk * 2 : TOKEN_TILES * kXTile;
constexpr int kXBegin = kWarps * STAGES * kWeightStage;
constexpr int kXRings = ONE_TOKEN ? kWarps : K_WARPS;  // one row of x is not worth sharing
constexpr int kPipelineBytes = kXBegin + kXRings * STAGES * kXStage;
constexpr int kTileGroups = kGroups * ROW_WARPS, kTileRows = 8 * kTileGroups;
constexpr int kPartialStride = kTileRows + 4;  // floats; tokens 2 t and rows g meet different banks
constexpr bool kPartialsOverPipeline = K_WARPS != kParts;  // then a block has one tile
constexpr int kPartialTokens = ONE_TOKEN ? 1 : kTokens;
// Scales as scaled_step takes them: of a warp's chunk, made by the warp when the chunk has come.
constexpr int kScaledBytes = form::kBlocks ? kGroups * form::kScaledGroupBytes : 0;
// With room for two tiles' partials, a tile costs one barrier, and warps take turns in adding them.
constexpr bool kTwoPartials = TOKEN_TILES == 1 && !kPartialsOverPipeline;
constexpr int kPartials = K_WARPS * kPartialTokens * kPartialStride;  // floats
constexpr int kPartialsBegin = kPartialsOverPipeline ? 0 : kPipelineBytes + kWarps * kScaledBytes;
// How the warps that share x divide its copies: tiles of 8 rows, then runs of 64 columns.
constexpr int kTileWarps = ROW_WARPS < TOKEN_TILES ? ROW_WARPS : TOKEN_TILES,
              kRunWarps = ROW_WARPS / kTileWarps;
constexpr int kXTiles = TOKEN_TILES / kTileWarps;  // of one warp
static_assert(ROW_WARPS % kTileWarps == 0 && TOKEN_TILES % kTileWarps == 0, "powers of two");
static_assert(!EXPERTS || (ROW_WARPS == 1 && CLUSTER == 1 && !ONE_TOKEN), "blocks of one expert end alone");
constexpr int kMostPairs = 4096, kMostExperts = 1024;  // m and pieces

// The rows of y that a block computes.
struct Rows {
  int first, count;  // of this pass
  const u16* pairs;  // EXPERTS: their numbers; else they follow each other
  int piece;
  DEVICE int row(int i) const { return EXPERTS ? pairs[first + i] : first + i; }
};

DEVICE void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// A warp's copies into its rings of stages. 8 rows by 64 columns of row-major bf16 become two fragments of
// 512 bytes: lane 4 g + t's 16 bytes of step h lie at 512 h + (16 lane ^ 64 (h & 1)), so that neither the
// copies (8 lanes to a row) nor the reads meet bank conflicts. Pointers walk over the chunks: a copy costs
// few other instructions.
struct Copies {
  int lane, row_warp;
  u32 weights, x;         // the rings, with this lane's place in a stage
  const u8* at[kGroups];  // this lane's next bytes of each group
  u32 present;            // bits: groups that exist
  int simple_end;         // tiles that end before this group follow the one before at tile_step bytes
  i64 tile_step;
  i64 four_rows;           // bytes; row-major weights
  u32 x_rows[kXTiles][2];  // offsets of this lane's rows of x
  int tile, chunk, slot;   // to be copied next
};

// This lane's place in 8 rows by 64 columns: row lane / 8 (and 4 more), 16 bytes each.
DEVICE u32 place_in_fragments(int lane) {
  const int segment = lane & 7, h = segment >> 2;
  return 512 * h + ((16 * (4 * (lane >> 3) + (segment & 3))) ^ (64 * h));
}
// The same where groups have 16 columns, form::kHalfSteps: of the first 8 bytes; the second are 16 further.
DEVICE u32 place_in_half_fragments(int lane) {
  const int segment = lane & 7, h = segment >> 2, u = segment & 3;
  return 512 * h + ((16 * (4 * (lane >> 3) + 2 * (u & 1))) ^ (64 * h)) + 8 * (u >> 1);
}

DEVICE void copy_weights(const Arguments& p, Copies& c, int chunk) {
  const u32 to = c.weights + c.slot * kWeightStage;
  [[maybe_unused]] const int bytes = (c.lane & 7) * 8 < int(p.cols) - chunk * kChunk ? 16 : 0;
#pragma unroll
  for (int q = 0; q < kGroups; ++q) {
    if (!((c.present >> q) & 1)) continue;
    if constexpr (form::kBlocks) {
      constexpr int kPieces = kGroupBytes / 16;
#pragma unroll
      for (int i = 0; i < (kPieces + 31) / 32; ++i)
        if ((i + 1) * 32 <= kPieces || 32 * i + c.lane < kPieces)
          copy16(to + q * kGroupBytes + 512 * i, c.at[q] + 512 * i);
      c.at[q] += kGroupBytes;
    } else {
      copy16(to + q * kGroupBytes, c.at[q], bytes);
      copy16(to + q * kGroupBytes + 256, c.at[q] + c.four_rows, bytes);
      c.at[q] += kChunk * 2;
    }
  }
}

DEVICE void copy_x(const Arguments& p, const Copies& c, const u8* x, int chunk, int slot) {
  const u32 to = c.x + slot * kXStage;
  const int left = int(p.cols) - chunk * kChunk;
  const u8* from = x + i64(chunk) * (kChunk * 2);
  if constexpr (ONE_TOKEN) {
    if (c.lane < kChunk / 8) {
      const int bytes = c.lane * 8 < left ? 16 : 0;
      if constexpr (form::kHalfSteps) {
        copy8(to, from + c.lane * 16, bytes / 2), copy8(to + 16, from + c.lane * 16 + 8, bytes / 2);
      } else {
        copy16(to, from + c.lane * 16, bytes);
      }
    }
  } else {
    const int first_tile = c.row_warp % kTileWarps, first_run = c.row_warp / kTileWarps;
    from += (c.lane & 7) * 16;
#pragma unroll
    for (int k = 0; k < kChunk / 64; k += kRunWarps) {
      const int run = k + (kRunWarps > 1 ? first_run : 0);
      if (kRunWarps > 1 && run >= kChunk / 64) break;
      const int bytes = run * 64 + (c.lane & 7) * 8 < left ? 16 : 0;
#pragma unroll
      for (int j = 0; j < kXTiles; ++j) {
        const u32 at = to + (first_tile + j * kTileWarps) * kXTile + run * 1024;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const u8* source = from + c.x_rows[j][i] + run * 128;
          if constexpr (form::kHalfSteps) {
            copy8(at + 256 * i, source, bytes / 2), copy8(at + 256 * i + 16, source + 8, bytes / 2);
          } else {
            copy16(at + 256 * i, source, bytes);
          }
        }
      }
    }
  }
}

DEVICE uint4 x_fragment(const u8* x, int tile, int step, int lane) {
  if constexpr (ONE_TOKEN) return *reinterpret_cast<const uint4*>(x + step * 64 + (lane & 3) * 16);
  return *reinterpret_cast<const uint4*>(x + tile * kXTile + step * 512 + ((16 * lane) ^ (64 * (step & 1))));
}

using Sums = float[ROW_TILES][TOKEN_TILES][4];

constexpr int kTogether = TOKEN_TILES < 4 ? TOKEN_TILES : 4;  // tiles of x in flight

DEVICE void multiply_rows(const uint4 (&a)[kGroups], const uint4 (&b)[kTogether], int n0, Sums& sums) {
#pragma unroll
  for (int n = 0; n < kTogether; ++n) {
#pragma unroll
    for (int r = 0; r < ROW_TILES; ++r)
      multiply(sums[r][n0 + n], a[2 * r].x, a[2 * r + 1].x, a[2 * r].y, a[2 * r + 1].y, b[n].x, b[n].y);
  }
#pragma unroll
  for (int n = 0; n < kTogether; ++n) {
#pragma unroll
    for (int r = 0; r < ROW_TILES; ++r)
      multiply(sums[r][n0 + n], a[2 * r].z, a[2 * r + 1].z, a[2 * r].w, a[2 * r + 1].w, b[n].z, b[n].w);
  }
}

#if FORM_LAYOUT == 2
// Step j of a section, 32 columns.
template <int j>
DEVICE void step_products(const form::Codes (&codes)[kGroups], const u8* scaled, const u8* x, int section,
                          int lane, Sums& sums) {
  uint4 a[kGroups];
#pragma unroll
  for (int q = 0; q < kGroups; ++q)
    a[q] = form::scaled_step<j>(
        codes[q], form::load_scaled(scaled + q * form::kScaledGroupBytes, section * 4 + j, lane >> 2));
#pragma unroll
  for (int n0 = 0; n0 < TOKEN_TILES; n0 += kTogether) {
    uint4 b[kTogether];
#pragma unroll
    for (int n = 0; n < kTogether; ++n) b[n] = x_fragment(x, n0 + n, section * 4 + j, lane);
    multiply_rows(a, b, n0, sums);
  }
}

constexpr int kSectionsAtATime = TOKEN_TILES * ROW_TILES >= 4 ? 1 : 2;

DEVICE void chunk_products(const u8* weights, const u8* x, u8* scaled, int lane, Sums& sums) {
#pragma unroll
  for (int q = 0; q < kGroups; ++q)
    form::make_scaled(weights + q * kGroupBytes, scaled + q * form::kScaledGroupBytes, lane);
  __syncwarp();
#pragma unroll kSectionsAtATime
  for (int section = 0; section < kChunk / 128; ++section) {
    form::Codes codes[kGroups];
#pragma unroll
    for (int q = 0; q < kGroups; ++q) codes[q] = form::load_codes(weights + q * kGroupBytes, section, lane);
    step_products<0>(codes, scaled, x, section, lane, sums);
    step_products<1>(codes, scaled, x, section, lane, sums);
    step_products<2>(codes, scaled, x, section, lane, sums);
    step_products<3>(codes, scaled, x, section, lane, sums);
  }
}
#else
// A half as the exact sum of two bf16: its upper 8 bits and the 3 below them.
DEVICE void split_half2(u32 halves, u32& high, u32& low) {
  const float a = from_f16(f16(halves)), b = from_f16(f16(halves >> 16));
  high = __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x7632);
  low = to_bf16x2(a - low_bf16(high), b - high_bf16(high));
}

DEVICE void chunk_products(const u8* weights, const u8* x, u8*, int lane, Sums& sums) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint4 a[kGroups];
#pragma unroll
    for (int q = 0; q < kGroups; ++q)
      a[q] = *reinterpret_cast<const uint4*>(weights + q * kGroupBytes + step * 512 +
                                             ((16 * lane) ^ (64 * (step & 1))));
#if FORM_LAYOUT == 1
    uint4 low[kGroups];
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
      const uint4 v = a[q];
      split_half2(v.x, a[q].x, low[q].x), split_half2(v.y, a[q].y, low[q].y);
      split_half2(v.z, a[q].z, low[q].z), split_half2(v.w, a[q].w, low[q].w);
    }
#endif
#pragma unroll
    for (int n0 = 0; n0 < TOKEN_TILES; n0 += kTogether) {
      uint4 b[kTogether];
#pragma unroll
      for (int n = 0; n < kTogether; ++n) b[n] = x_fragment(x, n0 + n, step, lane);
      multiply_rows(a, b, n0, sums);
#if FORM_LAYOUT == 1
      multiply_rows(low, b, n0, sums);
#endif
    }
  }
}
#endif

DEVICE u32 cluster_rank() {
  u32 r = 0;
#if CLUSTER > 1
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
#endif
  return r;
}
DEVICE void cluster_sync() {
#if CLUSTER > 1
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// A float in the shared memory of a block of the cluster.
DEVICE float load_from_block(const float* p, u32 rank) {
#if CLUSTER > 1
  float v;
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(p)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
  return v;
#else
  return *p;
#endif
}

DEVICE float sum_of_parts(const float* partials, int token, int row) {
  constexpr int kPart = kPartialTokens * kPartialStride;
  const float* at = partials + token * kPartialStride + row;
  if constexpr (kInSequence) return *at + 0.f;  // as below
  float values[kParts];
#pragma unroll
  for (int i = 0; i < kParts; ++i) values[i] = load_from_block(at + (i % K_WARPS) * kPart, i / K_WARPS);
  float sum = values[0];
#pragma unroll
  for (int i = 1; i < kParts; ++i) sum += values[i];
  return sum + 0.f;  // an empty part adds +0, which turns -0: the same with no empty part
}

// Adds the parts of the tile that begins at group `first` and writes y.
DEVICE void finish_tile(const Arguments& p, const float* partials, int first, int end, const Rows& rows,
                        int thread) {
  constexpr int kOutputs = GATED ? kTileRows / 2 : kTileRows;
  for (int i = int(cluster_rank()) * kThreads + thread; i < rows.count * kOutputs; i += kThreads * CLUSTER) {
    const int token = i / kOutputs, output = i % kOutputs;
    const int row = GATED ? (output / 8) * 16 + output % 8 : output, group = first + row / 8;
    if (group >= end) continue;
    const float v = sum_of_parts(partials, token, row);
    float up = 0;
    if constexpr (GATED) up = sum_of_parts(partials, token, row + 8);
    write_output(p, group, row % 8, rows.row(token), v, up);
  }
}

#if EXPERTS
// The expert that is number `slot` among those chosen, in ascending order, and the rows of y that chose it,
// ascending: their count, 0 when fewer were chosen.
DEVICE int pairs_of_expert(const Arguments& p, int slot, u16* pairs, int& expert) {
  __shared__ u32 used[kMostExperts / 32];
  __shared__ int found, count;
  for (int i = threadIdx.x; i < kMostExperts / 32; i += kThreads) used[i] = 0;
  if (threadIdx.x == 0) found = -1, count = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < p.m; i += kThreads)
    atomicOr(&used[p.chosen[i] / 32], 1u << (p.chosen[i] % 32));
  __syncthreads();
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    const u32 word = used[lane];
    int before = __popc(word);
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      const int other = __shfl_up_sync(0xffffffffu, before, d);
      if (lane >= d) before += other;
    }
    before -= __popc(word);
    if (slot >= before && slot < before + __popc(word))
      found = lane * 32 + int(__fns(word, 0, slot - before + 1));
    __syncwarp();
    const int wanted = found;
    if (wanted >= 0) {
      int total = 0;
      for (int i = lane; i - lane < p.m; i += 32) {
        const bool mine = i < p.m && p.chosen[i] == wanted;
        const u32 votes = __ballot_sync(0xffffffffu, mine);
        if (mine) pairs[total + __popc(votes & ((1u << lane) - 1))] = u16(i);
        total += __popc(votes);
      }
      if (lane == 0) count = total;
    }
  }
  __syncthreads();
  expert = found;
  return count;
}
#endif

// grid: (CLUSTER * any number of blocks among which the rows are divided, passes of kTokens rows of x)
extern "C" __global__ void __launch_bounds__(kThreads, MIN_BLOCKS)
    matmul_few(const __grid_constant__ Arguments p) {
  extern __shared__ __align__(128) u8 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int k_warp = warp / ROW_WARPS, part = int(cluster_rank()) * K_WARPS + k_warp;
  Copies c;
  c.lane = lane, c.row_warp = warp % ROW_WARPS;
  u8* const weights = shared + warp * STAGES * kWeightStage;
  u8* const x = shared + kXBegin + (ONE_TOKEN ? warp : k_warp) * STAGES * kXStage;
  u8* const scaled = shared + kPipelineBytes + warp * kScaledBytes;
  float* const partials = reinterpret_cast<float*>(shared + kPartialsBegin);
  const u32 in_fragments = place_in_fragments(lane);
  c.weights = shared_address(weights) + (form::kBlocks ? 16 * lane : in_fragments);
  c.x = shared_address(x);
  if constexpr (ONE_TOKEN && form::kHalfSteps) {
    c.x += (lane >> 2) * 64 + 32 * (lane & 1) + 8 * ((lane >> 1) & 1);
  } else if constexpr (ONE_TOKEN) {
    c.x += 16 * lane;
  } else {
    c.x += form::kHalfSteps ? place_in_half_fragments(lane) : in_fragments;
  }
  c.four_rows = 8 * p.cols;

  constexpr int kUnit = GATED ? 2 : 1;  // groups that stay together
  const int blocks = gridDim.x / CLUSTER, block = blockIdx.x / CLUSTER;
  const i64 units = p.groups / kUnit;
  const int first_group = int(units * block / blocks) * kUnit,
            end_group = int(units * (block + 1) / blocks) * kUnit;
  const int tiles = kPartialsOverPipeline ? 1 : (end_group - first_group + kTileGroups - 1) / kTileGroups;
  const int per_part = (p.chunks + kParts - 1) / kParts;
  const int first_chunk = kInSequence ? 0 : min(part * per_part, p.chunks);
  const int chunks = kInSequence ? p.chunks : min(per_part, p.chunks - first_chunk);

  Rows rows = {int(blockIdx.y) * kTokens, 0, nullptr, 0};
  rows.count = min(p.m - rows.first, kTokens);
#if EXPERTS
  __shared__ u16 pairs[kMostPairs];
  release_next();
  wait_for_previous();
  const int all = pairs_of_expert(p, int(blockIdx.y), pairs, rows.piece);
  rows.pairs = pairs;
  for (rows.first = 0; rows.first < all; rows.first += kTokens) {
    rows.count = min(all - rows.first, kTokens);
#endif
    const u8* const x_begin = reinterpret_cast<const u8*>(p.x + (EXPERTS ? 0 : i64(rows.first) * p.cols));
    // The copies run ahead of the products by STAGES - 1 chunks.
    c.tile = 0, c.slot = 0, c.simple_end = 0;
    c.tile_step = kTileGroups / kUnit * (form::kBlocks ? i64(p.chunks) * kGroupBytes : 16 * p.cols) -
                  i64(chunks) * (form::kBlocks ? kGroupBytes : kChunk * 2);
    const auto begin_tile = [&] {
      c.chunk = 0;
      const int group = first_group + c.tile * kTileGroups + c.row_warp * kGroups;
      if (!kPartialsOverPipeline && group + kGroups <= c.simple_end) {
#pragma unroll
        for (int q = 0; q < kGroups; ++q) c.at[q] += c.tile_step;
        return;
      }
      c.present = 0;
      const int s = segment_of(p, group);
      const int segment_end = s + 1 < p.segment_count ? p.segments[s + 1].first_group : p.groups;
      c.simple_end = group + kGroups <= segment_end ? min(segment_end, end_group) : 0;
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        if (group + q >= end_group) continue;
        c.present |= 1u << q;
        c.at[q] = place_of(p, group + q, rows.piece, kGroupBytes) +
                  i64(first_chunk) * (form::kBlocks ? kGroupBytes : kChunk * 2);
        c.at[q] += form::kBlocks ? 16 * lane : (lane >> 3) * 2 * p.cols + 16 * (lane & 7);
      }
    };
    const auto more_to_copy = [&] {
      if (c.chunk < chunks) return true;
      if (kPartialsOverPipeline || chunks == 0 || c.tile + 1 >= tiles) return false;
      ++c.tile;
      begin_tile();
      return true;
    };
    begin_tile();
    // Weights before anything that depends on the kernel before this one.
    int ahead = 0;
#pragma unroll 1
    for (; c.slot < STAGES - 1; ++c.slot) {
      if (more_to_copy()) copy_weights(p, c, first_chunk + c.chunk++), ++ahead;
      commit();
    }
#if !EXPERTS
    begin_after_previous(p);
#endif
    if constexpr (!ONE_TOKEN) {
#pragma unroll
      for (int j = 0; j < kXTiles; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row =
              min((c.row_warp % kTileWarps + j * kTileWarps) * 8 + 4 * i + (lane >> 3), rows.count - 1);
          c.x_rows[j][i] = u32(EXPERTS ? rows.row(row) / p.x_share : row) * u32(p.cols * 2);
        }
    }
#pragma unroll 1
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < ahead) copy_x(p, c, x_begin, first_chunk + s % chunks, s);
      commit();
    }
    const auto meet = [&] {  // the warps that share x
      if constexpr (ROW_WARPS == 1 || ONE_TOKEN) {
        __syncwarp();
      } else if constexpr (ROW_WARPS == kWarps) {
        __syncthreads();
      } else {
        asm volatile("bar.sync %0, %1;" ::"r"(1 + k_warp), "n"(32 * ROW_WARPS) : "memory");
      }
    };
    int slot = 0;
    for (int tile = 0; tile < tiles; ++tile) {
      Sums sums = {};
      [[maybe_unused]] Sums total;
      [[maybe_unused]] int left_in_part = per_part;
      [[maybe_unused]] bool first_part = true;
#pragma unroll 1
      for (int chunk = 0; chunk < chunks; ++chunk) {
        wait_until_pending<STAGES - 2>();
        meet();
        if (more_to_copy()) {
          copy_weights(p, c, first_chunk + c.chunk);
          copy_x(p, c, x_begin, first_chunk + c.chunk, c.slot);
          ++c.chunk;
        }
        commit();
        c.slot = c.slot + 1 == STAGES ? 0 : c.slot + 1;
        const int next = slot + 1 == STAGES ? 0 : slot + 1;
        chunk_products(weights + slot * kWeightStage, x + slot * kXStage, scaled, lane, sums);
        slot = next;
        if constexpr (kInSequence) {
          if (--left_in_part == 0 || chunk + 1 == chunks) {
            left_in_part = per_part;
#pragma unroll
            for (int i = 0; i < ROW_TILES * TOKEN_TILES * 4; ++i) {
              float& sum = sums[i / (TOKEN_TILES * 4)][i / 4 % TOKEN_TILES][i % 4];
              float& all = total[i / (TOKEN_TILES * 4)][i / 4 % TOKEN_TILES][i % 4];
              all = first_part ? sum : all + sum;
              sum = 0;
            }
            first_part = false;
          }
        }
      }

      // The tile's sums go through shared memory: parts are added, rows of y written in order.
      if constexpr (!kTwoPartials)
        __syncthreads();  // partials have been read; over the pipeline: products are done
      float* const tile_partials = partials + (kTwoPartials && tile % 2 ? kPartials : 0);
      float* const mine = tile_partials + k_warp * kPartialTokens * kPartialStride;
#pragma unroll
      for (int r = 0; r < ROW_TILES; ++r)
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int token = 8 * n + 2 * (lane & 3) + (i & 1);
            const int row = (c.row_warp * ROW_TILES + r) * 16 + (lane >> 2) + 8 * (i >> 1);
            if (token < kPartialTokens)
              mine[token * kPartialStride + row] = (kInSequence ? total : sums)[r][n][i] * form::kSumScale;
          }
      if constexpr (CLUSTER > 1) {
        cluster_sync();
      } else {
        __syncthreads();
      }
      const int turn = kTwoPartials ? 32 * (tile % kWarps) : 0;
      finish_tile(p, tile_partials, first_group + tile * kTileGroups, end_group, rows,
                  (int(threadIdx.x) + kThreads - turn) % kThreads);
      if constexpr (CLUSTER > 1) cluster_sync();  // no block leaves while others read its partials
    }
#if EXPERTS
  }
#else
  end_after_previous(p);
#endif
}
