// y = x w^T for rows that extend answers: 1 to 64 rows (more: in passes of 64), any form of weights.
//
// Every weight is read once, as the A operand (16 weight rows) of m16n8k16; the rows of x are B, 8 to a
// product. A warp keeps STAGES - 1 chunks of weights on their way into shared memory (cp.async), across the
// tiles of its block, and fills them before it waits for the kernel that makes x.
//
// Order of sums, the same for every tiling: K is cut into 8 parts of whole chunks; a part is summed by one
// warp, 16 columns a product, ascending; parts are added 0 to 7. In quantized forms a product of 16 or 32
// columns is summed in integers of codes (exact in bf16) times x, then scaled in f32.
//
// Bound: device memory up to about 32 rows; then the tensor cores.
// Tried: see docs/notes.md. Reference: double on the CPU (matmul_few_gpu_test.cpp).
//
// Macros: FORM_* (weight_forms.cuh); ROW_TILES: of 16 rows, per warp; TOKEN_TILES: of 8 rows of x; K_WARPS *
// CLUSTER = 8 parts of K side by side, or K_WARPS = CLUSTER = 1, one after the other; ROW_WARPS: warps side
// by side along rows; STAGES; GATED; ONE_TOKEN: m is 1; EXPERTS: row i of y is x row i / x_share times the
// piece chosen[i] of the weights; MIN_BLOCKS per multiprocessor.
#include "weight_forms.cuh"

constexpr int kParts = 8;
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
constexpr int kPipelineBytes = kXBegin + K_WARPS * STAGES * kXStage;
constexpr int kTileGroups = kGroups * ROW_WARPS, kTileRows = 8 * kTileGroups;
constexpr int kPartialStride = kTileRows + 4;          // floats; tokens 2 t and rows g meet different banks
constexpr bool kPartialsOverPipeline = ROW_WARPS > 1;  // then a block has one tile
constexpr int kPartialTokens = ONE_TOKEN ? 1 : kTokens;
static_assert(!EXPERTS || (ROW_WARPS == 1 && CLUSTER == 1 && !ONE_TOKEN), "blocks of one expert end alone");
constexpr int kMostPairs = 4096, kMostExperts = 1024;  // m and pieces

struct Segment {  // one of the matrices that share x
  const u8 *w, *up;
  const float* bias;
  void* y;
  i64 y_stride;
  i64 piece_bytes;
  int rows, first_group;  // its first group of 8 rows among all segments' (gated: groups of w and up in turn)
};
constexpr int kMostSegments = 4;
struct Arguments {
  Segment segments[kMostSegments];
  const bf16* x;
  const float* add;   // like y of segment 0, or null
  const i32* chosen;  // [m]: the piece of each row of y
  i64 cols;
  int m, groups, chunks, segment_count;
  int y_f32, activation;
  float scale, softcap;
  int x_share;  // rows of y that share a row of x
};

// The rows of y that a block computes.
struct Rows {
  int first, count;  // of this pass
  const u16* pairs;  // EXPERTS: their numbers; else they follow each other
  int piece;
  DEVICE int row(int i) const { return EXPERTS ? pairs[first + i] : first + i; }
};

DEVICE u32 shared_address(const void* p) {
  u32 a;
  asm("{.reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t;}" : "=r"(a) : "l"(p));
  return a;
}
// bytes: 16, or 0 to fill with zeros
DEVICE void copy16(u32 to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
DEVICE void copy16(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE void copy8(u32 to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
DEVICE void wait_until_pending() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

DEVICE void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Numbers of program::Activation.
DEVICE float activated(int kind, float x) {
  switch (kind) {
    case 1: return fmaxf(x, 0.f);
    case 2: return x / (1.f + __expf(-x));
    case 3: return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    case 4: return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case 5: return x / (1.f + __expf(-1.702f * x));
    case 6: return 1.f / (1.f + __expf(-x));
    default: return x;
  }
}

DEVICE int segment_of(const Arguments& p, int group) {
  int s = 0;
#pragma unroll
  for (int i = 1; i < kMostSegments; ++i) s += i < p.segment_count && group >= p.segments[i].first_group;
  return s;
}

// Where a group of 8 rows lies, and how many of its rows exist.
struct GroupPlace {
  const u8* at;
  int rows;
};
DEVICE GroupPlace place_of(const Arguments& p, int group, int piece) {
  const Segment& s = p.segments[segment_of(p, group)];
  int local = group - s.first_group;
  const u8* base = s.w;
  if (GATED) base = (local & 1) ? s.up : s.w, local >>= 1;
  if (EXPERTS) base += piece * s.piece_bytes;
  const i64 bytes = form::kBlocks ? i64(p.chunks) * kGroupBytes : 16 * p.cols;
  return {base + local * bytes, min(8, s.rows - 8 * local)};
}

// Copies 8 rows by 64 columns of row-major bf16 into two fragments of 512 bytes: lane 4 g + t's 16 bytes of
// step h lie at 512 h + (16 lane ^ 64 (h & 1)), so that neither the copy (8 lanes a row) nor the read meets
// bank conflicts.
template <bool halves, typename RowOf>
DEVICE void copy_rows(u32 to, const u8* from, i64 row_bytes, RowOf row_of, i64 columns_left, int lane) {
  const int segment = lane & 7, h = segment >> 2;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = 4 * i + (lane >> 3);
    const int bytes = segment * 8 < columns_left ? 16 : 0;
    const u8* source = from + row_of(row) * row_bytes + segment * 16;
    if (bytes == 0) source = from;
    if constexpr (halves) {  // columns 16 (e / 4) + 4 t + e % 4: two lanes' halves
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int u = segment & 3, t = 2 * (u & 1) + j;
        copy8(to + 512 * h + ((16 * (4 * row + t)) ^ (64 * h)) + 8 * (u >> 1), source + 8 * j, bytes / 2);
      }
    } else {
      copy16(to + 512 * h + ((16 * (4 * row + (segment & 3))) ^ (64 * h)), source, bytes);
    }
  }
}

struct Warp {
  int lane, row_warp;
  u32 weights, x;  // its rings of stages in shared memory
};

DEVICE void copy_weights(const Arguments& p, const Warp& w, const GroupPlace (&places)[kGroups], int slot,
                         int chunk) {
#pragma unroll
  for (int q = 0; q < kGroups; ++q) {
    if (places[q].rows <= 0) continue;
    const u32 to = w.weights + slot * kWeightStage + q * kGroupBytes;
    if constexpr (form::kBlocks) {
      const u8* from = places[q].at + i64(chunk) * kGroupBytes;
#pragma unroll
      for (int i = 0; i < (kGroupBytes / 16 + 31) / 32; ++i) {
        const int piece = 32 * i + w.lane;
        if ((i + 1) * 32 <= kGroupBytes / 16 || piece < kGroupBytes / 16)
          copy16(to + piece * 16, from + piece * 16);
      }
    } else {
      const int last = places[q].rows - 1;
      copy_rows<false>(
          to, places[q].at + chunk * (kChunk * 2), p.cols * 2, [&](int row) { return min(row, last); },
          p.cols - i64(chunk) * kChunk, w.lane);
    }
  }
}

DEVICE void copy_x(const Arguments& p, const Warp& w, const Rows& rows, int slot, int chunk) {
  const u32 to = w.x + slot * kXStage;
  const u8* from =
      reinterpret_cast<const u8*>(p.x + i64(EXPERTS ? 0 : rows.first) * p.cols + i64(chunk) * kChunk);
  const i64 left = p.cols - i64(chunk) * kChunk;
  if constexpr (ONE_TOKEN) {
    if (w.lane < kChunk / 8) {
      const int bytes = w.lane * 8 < left ? 16 : 0;
      const u8* source = bytes ? from + w.lane * 16 : from;
      if constexpr (form::kHalfSteps) {
        const int u = w.lane & 3;
#pragma unroll
        for (int j = 0; j < 2; ++j)
          copy8(to + (w.lane >> 2) * 64 + (2 * (u & 1) + j) * 16 + 8 * (u >> 1), source + 8 * j, bytes / 2);
      } else {
        copy16(to + w.lane * 16, source, bytes);
      }
    }
  } else {
    constexpr int kPieces = TOKEN_TILES * (kChunk / 64);
#pragma unroll
    for (int i = 0; i < (kPieces + ROW_WARPS - 1) / ROW_WARPS; ++i) {
      const int piece = i * ROW_WARPS + w.row_warp;
      if (kPieces % ROW_WARPS != 0 && piece >= kPieces) break;
      const int tile = piece / (kChunk / 64), sub = piece % (kChunk / 64);
      const auto row_of = [&](int row) {
        row = min(tile * 8 + row, rows.count - 1);
        return EXPERTS ? rows.row(row) / p.x_share : row;
      };
      copy_rows<form::kHalfSteps>(to + tile * kXTile + sub * 1024, from + sub * 128, p.cols * 2, row_of,
                                  left - sub * 64, w.lane);
    }
  }
}

DEVICE uint4 x_fragment(const u8* x, int tile, int step, int lane) {
  if constexpr (ONE_TOKEN) return *reinterpret_cast<const uint4*>(x + step * 64 + (lane & 3) * 16);
  return *reinterpret_cast<const uint4*>(x + tile * kXTile + step * 512 + ((16 * lane) ^ (64 * (step & 1))));
}

using Sums = float[ROW_TILES][TOKEN_TILES][4];

#if FORM_LAYOUT == 2
// Four steps of 32 columns.
template <int j>
DEVICE void step_products(const form::Codes (&codes)[kGroups], const form::SectionScales (&scales)[kGroups],
                          const u8* x, int section, int lane, Sums& sums) {
  u32 pairs[kGroups][4];
  float scale[kGroups][2], min[kGroups][2];
#pragma unroll
  for (int q = 0; q < kGroups; ++q) {
    u32 offset = 0;
    form::step_scales<j>(scales[q], scale[q], min[q], offset);
    form::decode_step<j>(codes[q], offset, pairs[q]);
  }
#pragma unroll
  for (int n = 0; n < TOKEN_TILES; ++n) {
    const uint4 b = x_fragment(x, n, section * 4 + j, lane);
    float x_sum[2][4] = {};
    if constexpr (form::kMin) {  // sums of x over the group: a product with ones
      constexpr u32 one = 0x3f803f80u;
      multiply(x_sum[0], one, one, one, one, b.x, b.y);
      multiply(x_sum[form::kHalfSteps], one, one, one, one, b.z, b.w);
    }
#pragma unroll
    for (int r = 0; r < ROW_TILES; ++r) {
      float(&c)[4] = sums[r][n];
      float part[2][4] = {};
      multiply(part[0], pairs[2 * r][0], pairs[2 * r + 1][0], pairs[2 * r][1], pairs[2 * r + 1][1], b.x, b.y);
      multiply(part[form::kHalfSteps], pairs[2 * r][2], pairs[2 * r + 1][2], pairs[2 * r][3],
               pairs[2 * r + 1][3], b.z, b.w);
#pragma unroll
      for (int h = 0; h <= int(form::kHalfSteps); ++h) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          c[i] = fmaf(scale[2 * r + i / 2][h], part[h][i], c[i]);
          if constexpr (form::kMin) c[i] = fmaf(min[2 * r + i / 2][h], x_sum[h][i % 2], c[i]);
        }
      }
    }
  }
}

DEVICE void chunk_products(const u8* weights, const u8* x, int lane, Sums& sums) {
#pragma unroll
  for (int section = 0; section < kChunk / 128; ++section) {
    form::Codes codes[kGroups];
    form::SectionScales scales[kGroups];
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
      codes[q] = form::load_codes(weights + q * kGroupBytes, section, lane);
      scales[q] = form::load_scales(weights + q * kGroupBytes, section, lane >> 2);
    }
    if constexpr (TOKEN_TILES >= 4) {
      // One step at a time: the compiler would otherwise begin many and run out of registers.
#pragma unroll 1
      for (int j = 0; j < 4; ++j) {
        switch (j) {
          case 0: step_products<0>(codes, scales, x, section, lane, sums); break;
          case 1: step_products<1>(codes, scales, x, section, lane, sums); break;
          case 2: step_products<2>(codes, scales, x, section, lane, sums); break;
          default: step_products<3>(codes, scales, x, section, lane, sums);
        }
      }
    } else {
      step_products<0>(codes, scales, x, section, lane, sums);
      step_products<1>(codes, scales, x, section, lane, sums);
      step_products<2>(codes, scales, x, section, lane, sums);
      step_products<3>(codes, scales, x, section, lane, sums);
    }
  }
}
#else
// A half as the exact sum of two bf16: its upper 8 bits and the 3 below them.
DEVICE void split_half2(u32 halves, u32& high, u32& low) {
  const float a = from_f16(f16(halves)), b = from_f16(f16(halves >> 16));
  high = __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x7632);
  low = to_bf16x2(a - low_bf16(high), b - high_bf16(high));
}

DEVICE void chunk_products(const u8* weights, const u8* x, int lane, Sums& sums) {
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
    for (int n = 0; n < TOKEN_TILES; ++n) {
      const uint4 b = x_fragment(x, n, step, lane);
#pragma unroll
      for (int r = 0; r < ROW_TILES; ++r) {
        multiply(sums[r][n], a[2 * r].x, a[2 * r + 1].x, a[2 * r].y, a[2 * r + 1].y, b.x, b.y);
        multiply(sums[r][n], a[2 * r].z, a[2 * r + 1].z, a[2 * r].w, a[2 * r + 1].w, b.z, b.w);
#if FORM_LAYOUT == 1
        multiply(sums[r][n], low[2 * r].x, low[2 * r + 1].x, low[2 * r].y, low[2 * r + 1].y, b.x, b.y);
        multiply(sums[r][n], low[2 * r].z, low[2 * r + 1].z, low[2 * r].w, low[2 * r + 1].w, b.z, b.w);
#endif
      }
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
DEVICE void finish_tile(const Arguments& p, const float* partials, int first, int end, const Rows& rows) {
  constexpr int kOutputs = GATED ? kTileRows / 2 : kTileRows;
  for (int i = int(cluster_rank()) * kThreads + int(threadIdx.x); i < rows.count * kOutputs;
       i += kThreads * CLUSTER) {
    const int token = i / kOutputs, output = i % kOutputs;
    const int row = GATED ? (output / 8) * 16 + output % 8 : output, group = first + row / 8;
    if (group >= end) continue;
    const Segment& s = p.segments[segment_of(p, group)];
    const int out_row = ((group - s.first_group) >> (GATED ? 1 : 0)) * 8 + row % 8;
    if (out_row >= s.rows) continue;
    float v = sum_of_parts(partials, token, row);
    if constexpr (GATED) {
      v = activated(p.activation, v) * sum_of_parts(partials, token, row + 8);
    } else {
      v *= p.scale;
      if (s.bias) v += s.bias[out_row];
      if (p.softcap != 0.f) v = p.softcap * tanhf(v / p.softcap);
      if (p.activation != 0) v = activated(p.activation, v);
    }
    const i64 at = i64(rows.row(token)) * s.y_stride + out_row;
    if (p.add) v += p.add[at];
    if (p.y_f32) {
      static_cast<float*>(s.y)[at] = v;
    } else {
      static_cast<bf16*>(s.y)[at] = to_bf16(v);
    }
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
  Warp w;
  w.lane = lane, w.row_warp = warp % ROW_WARPS;
  u8* const weights = shared + warp * STAGES * kWeightStage;
  u8* const x = shared + kXBegin + k_warp * STAGES * kXStage;
  w.weights = shared_address(weights), w.x = shared_address(x);
  float* const partials = reinterpret_cast<float*>(shared + (kPartialsOverPipeline ? 0 : kPipelineBytes));

  constexpr int kUnit = GATED ? 2 : 1;  // groups that stay together
  const int blocks = gridDim.x / CLUSTER, block = blockIdx.x / CLUSTER;
  const i64 units = p.groups / kUnit;
  const int first_group = int(units * block / blocks) * kUnit,
            end_group = int(units * (block + 1) / blocks) * kUnit;
  const int tiles = (end_group - first_group + kTileGroups - 1) / kTileGroups;
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
    // The copies run ahead of the products by STAGES - 1 chunks.
    GroupPlace places[kGroups];
    int copy_tile = -1, copy_chunk = chunks, copy_slot = 0;
    const auto advance_copy = [&] {  // false when all has been copied
      if (chunks == 0) return false;
      if (copy_chunk == chunks) {
        if (copy_tile + 1 >= tiles) return false;
        ++copy_tile, copy_chunk = 0;
        const int group = first_group + copy_tile * kTileGroups + w.row_warp * kGroups;
#pragma unroll
        for (int q = 0; q < kGroups; ++q) {
          places[q].at = nullptr, places[q].rows = 0;
          if (group + q < end_group) places[q] = place_of(p, group + q, rows.piece);
        }
      }
      return true;
    };
    // Weights before anything that depends on the kernel before this one.
    int ahead = 0;
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
      if (advance_copy()) copy_weights(p, w, places, s, first_chunk + copy_chunk++), ++ahead;
      commit();
    }
#if !EXPERTS
    release_next();
    wait_for_previous();
#endif
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < ahead) copy_x(p, w, rows, s, first_chunk + s % chunks);
      commit();
    }
    copy_slot = STAGES - 1;

    int slot = 0;
    for (int tile = 0; tile < tiles; ++tile) {
      Sums sums = {};
      [[maybe_unused]] Sums total;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        wait_until_pending<STAGES - 2>();
        if constexpr (ROW_WARPS == 1) {
          __syncwarp();
        } else {
          asm volatile("bar.sync %0, %1;" ::"r"(1 + k_warp), "n"(32 * ROW_WARPS) : "memory");
        }
        if (advance_copy()) {
          copy_weights(p, w, places, copy_slot, first_chunk + copy_chunk);
          copy_x(p, w, rows, copy_slot, first_chunk + copy_chunk);
          ++copy_chunk;
        }
        commit();
        copy_slot = copy_slot + 1 == STAGES ? 0 : copy_slot + 1;
        chunk_products(weights + slot * kWeightStage, x + slot * kXStage, lane, sums);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        if constexpr (kInSequence) {
          const bool ends = (chunk + 1) % per_part == 0 || chunk + 1 == chunks;
          if (ends) {
#pragma unroll
            for (int i = 0; i < ROW_TILES * TOKEN_TILES * 4; ++i) {
              float& sum = sums[i / (TOKEN_TILES * 4)][i / 4 % TOKEN_TILES][i % 4];
              float& all = total[i / (TOKEN_TILES * 4)][i / 4 % TOKEN_TILES][i % 4];
              all = chunk < per_part ? sum : all + sum;
              sum = 0;
            }
          }
        }
      }

      // The tile's sums go through shared memory: parts are added, rows of y written in order.
      __syncthreads();  // the partials of the tile before have been read; over the pipeline: all products are
                        // done
      float* const mine = partials + k_warp * kPartialTokens * kPartialStride;
#pragma unroll
      for (int r = 0; r < ROW_TILES; ++r)
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int token = 8 * n + 2 * (lane & 3) + (i & 1);
            const int row = (w.row_warp * ROW_TILES + r) * 16 + (lane >> 2) + 8 * (i >> 1);
            if (token < kPartialTokens)
              mine[token * kPartialStride + row] = kInSequence ? total[r][n][i] : sums[r][n][i];
          }
      if constexpr (CLUSTER > 1) {
        cluster_sync();
      } else {
        __syncthreads();
      }
      finish_tile(p, partials, first_group + tile * kTileGroups, end_group, rows);
      if constexpr (CLUSTER > 1) cluster_sync();  // no block leaves while others read its partials
    }
#if EXPERTS
  }
#endif
}
