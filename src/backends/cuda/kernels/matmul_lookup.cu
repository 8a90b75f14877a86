// y = x w^T with weights in planes of signs (codecs/bcq.h), for rows that extend answers: sums of four
// neighbouring elements of x under all 16 signs are tabulated in shared memory, and four signs of a weight
// row look one up (LUT-GEMM, arXiv 2206.09557). Nothing is unpacked or multiplied but one sum per plane and
// 128 columns.
//
// A lane owns a row of w. A table of 16 floats has each of its entries in a bank of its own, so that 32 lanes
// never conflict, whatever they look up: one cycle per 128 signs. (Tables of 256 entries for 8 elements, as
// the paper has them, are looked up half as often per second on an H200, 3.6 against 6.6 T/s, and take 8
// times the work per element to build.) Of two or four rows of x entries are pairs.
//
// Order of sums, the same for every number of rows of x and every tiling: K is cut into PARTS parts of whole
// blocks of 128 columns; within a block four columns at a time, ascending, plane by plane; parts are added in
// order.
//
// Bound: shared memory, one look-up a cycle; with one row of x about what reading the weights takes.
// Reference: double on the CPU (matmul_lookup_gpu_test.cpp).
//
// Macros: PLANES 1 to 4; TOKENS 1, 2 or 4 rows of x; SETS of 32 rows of w that a warp walks; PARTS warps side
// by side along K; GATED: set 0 is w, set 1 up; MIN_BLOCKS per multiprocessor.
#include "planes.cuh"

constexpr int kPairs = TOKENS == 4 ? 2 : 1;  // of rows of x that share a look-up's address
constexpr int kEntry = TOKENS == 1 ? 4 : 8;  // bytes
constexpr int kTable = 16 * kEntry, kTables = 32 * kTable, kWarpBytes = kPairs * kTables;

// A block of one row: its signs and scales.
struct Block {
  uint4 signs[PLANES];
  u16 alpha[PLANES];
  float bias;
};

DEVICE uint4 load_once(const u8* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
DEVICE Block load_block(const u8* block, int row) {
  Block b;
#pragma unroll
  for (int i = 0; i < PLANES; ++i) {
    b.signs[i] = load_once(block + (i * 8 + row) * 16);
    b.alpha[i] = *reinterpret_cast<const u16*>(block + kAlphas + (i * 8 + row) * 2);
  }
  b.bias = *reinterpret_cast<const float*>(block + kBiases + row * 4);
  return b;
}

// The sums of this lane's four columns for one row of x: entry p is low[p & 3] + high[p >> 2].
struct Halves {
  float low[4], high[4];
};
DEVICE Halves halves_of(uint2 x) {
  const float a = low_bf16(x.x), b = high_bf16(x.x), c = low_bf16(x.y), d = high_bf16(x.y);
  return {{-a - b, a - b, b - a, a + b}, {-c - d, c - d, d - c, c + d}};
}

extern __shared__ __align__(256) u8 shared[];

// Table `lane` of the warp's 32, which begin at shared + tables. Runs of 16 bytes are exchanged so that eight
// lanes that store side by side, and so whole tables apart, meet all banks.
DEVICE void store_tables(u32 tables, int lane, const Halves (&of)[TOKENS]) {
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    u8* const at = shared + tables + pair * kTables + lane * kTable;
    if constexpr (TOKENS == 1) {
#pragma unroll
      for (int u = 0; u < 4; ++u)
        *reinterpret_cast<float4*>(at + 16 * (u ^ ((lane >> 1) & 3))) =
            make_float4(of[0].low[0] + of[0].high[u], of[0].low[1] + of[0].high[u],
                        of[0].low[2] + of[0].high[u], of[0].low[3] + of[0].high[u]);
    } else {
      const Halves &a = of[2 * pair], &b = of[2 * pair + (TOKENS > 1)];
#pragma unroll
      for (int u = 0; u < 8; ++u)
        *reinterpret_cast<float4*>(at + 16 * (u ^ (lane & 7))) =
            make_float4(a.low[2 * (u & 1)] + a.high[u >> 1], b.low[2 * (u & 1)] + b.high[u >> 1],
                        a.low[2 * (u & 1) + 1] + a.high[u >> 1], b.low[2 * (u & 1) + 1] + b.high[u >> 1]);
    }
  }
}

// Adds the entries of tables 8 t to 8 t + 7 that the nibbles of word t name.
DEVICE void look_up(u32 word, int t, u32 tables, float (&sum)[TOKENS]) {
  // Offsets of the entries, a byte each: of even and of odd nibbles, where store_tables put them.
  const u32 even =
      TOKENS == 1 ? ((word << 2) & 0x3c3c3c3cu) ^ 0x30201000u : ((word << 3) & 0x78787878u) ^ 0x60402000u;
  const u32 odd =
      TOKENS == 1 ? ((word >> 2) & 0x3c3c3c3cu) ^ 0x30201000u : ((word >> 1) & 0x78787878u) ^ 0x70503010u;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    // The lowest byte of `tables` is 0: one instruction puts the offset there.
    const u32 at = __byte_perm(j & 1 ? odd : even, tables, 0x7650 + j / 2);
    const u8* const entry = shared + at + (8 * t + j) * kTable;
    if constexpr (TOKENS == 1) {
      sum[0] += *reinterpret_cast<const float*>(entry);
    } else {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const float2 v = *reinterpret_cast<const float2*>(entry + pair * kTables);
        sum[2 * pair] += v.x, sum[2 * pair + (TOKENS > 1)] += v.y;
      }
    }
  }
}

// grid: (tiles of kTileRows rows of all segments, passes of TOKENS rows of x)
extern "C" __global__ void __launch_bounds__(kThreads, MIN_BLOCKS)
    matmul_lookup(const __grid_constant__ Arguments p) {
  const int lane = int(threadIdx.x) & 31, part = int(threadIdx.x) >> 5;
  const Segment& s = segment_of_block(p);
  const int row0 = (int(blockIdx.x) - s.first_tile) * kTileRows, token0 = int(blockIdx.y) * TOKENS;
  const int blocks = int(p.cols / kColumns);
  const int begin = int(i64(blocks) * part / PARTS), end = int(i64(blocks) * (part + 1) / PARTS);

  const u8* w[SETS];
#pragma unroll
  for (int set = 0; set < SETS; ++set) {
    // Groups past the end: the last one is read, and nothing written.
    const int group = min((row0 + (GATED ? 0 : 32 * set) + lane) >> 3, (s.rows - 1) >> 3);
    w[set] = (GATED && set ? s.up : s.w) + (i64(group) * blocks + begin) * kBlockBytes;
  }
  const int in_group = lane & 7;
  Block next[SETS] = {};
  if (begin < end) {
#pragma unroll
    for (int set = 0; set < SETS; ++set) next[set] = load_block(w[set], in_group);
  }
  release_next();
  wait_for_previous();
  const auto load_x = [&](int block, uint2(&x)[TOKENS]) {
#pragma unroll
    for (int i = 0; i < TOKENS; ++i)
      x[i] = token0 + i < p.m ? *reinterpret_cast<const uint2*>(p.x + i64(token0 + i) * p.cols +
                                                                i64(block) * kColumns + 4 * lane)
                              : make_uint2(0, 0);
  };
  uint2 x[TOKENS] = {};
  if (begin < end) load_x(begin, x);

  const u32 tables = u32(part) * kWarpBytes;
  float total[SETS][TOKENS] = {};
#pragma unroll 1
  for (int block = begin; block < end; ++block) {
    Halves of[TOKENS];
    float x_sum[TOKENS];
#pragma unroll
    for (int i = 0; i < TOKENS; ++i) of[i] = halves_of(x[i]), x_sum[i] = of[i].low[3] + of[i].high[3];
    __syncwarp();
    store_tables(tables, lane, of);
    __syncwarp();
    const bool more = block + 1 < end;
    if (more) load_x(block + 1, x);
#pragma unroll
    for (int i = 0; i < TOKENS; ++i) x_sum[i] = warp_sum(x_sum[i]);
#pragma unroll
    for (int set = 0; set < SETS; ++set) {
      const Block now = next[set];
      w[set] += kBlockBytes;
      if (more) next[set] = load_block(w[set], in_group);
      float sum[PLANES][TOKENS] = {};
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int i = 0; i < PLANES; ++i) {
          const uint4& v = now.signs[i];
          look_up(t == 0 ? v.x : t == 1 ? v.y : t == 2 ? v.z : v.w, t, tables, sum[i]);
        }
      }
#pragma unroll
      for (int token = 0; token < TOKENS; ++token) {
        float& to = total[set][token];
#pragma unroll
        for (int i = 0; i < PLANES; ++i) to = fmaf(from_f16(now.alpha[i]), sum[i][token], to);
        to = fmaf(now.bias, x_sum[token], to);
      }
    }
  }

  __syncthreads();  // parts' sums lie where the tables were
  auto* const partials = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int set = 0; set < SETS; ++set) {
#pragma unroll
    for (int token = 0; token < TOKENS; ++token)
      partials[((part * TOKENS + token) * SETS + set) * 32 + lane] = total[set][token];
  }
  __syncthreads();
  finish(p, s, partials, row0, token0);
}
