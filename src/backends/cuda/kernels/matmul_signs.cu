// y = x w^T with weights in planes of signs (codecs/bcq.h), for up to 64 rows that extend answers and more:
// each plane's signs are made +-1 in bf16 and multiplied on the tensor cores, its sums of 128 columns scaled
// in f32. For more than one row of x this beats looking sums up (matmul_lookup.cu).
//
// A block of 8 rows by 128 columns has a word of 32 columns for each lane: lane 4 g + t holds row g, columns
// 32 t to 32 t + 31, and columns c and c + 16 of them are a pair of the operand, one shift and one LOP3 away.
//
// Order of sums, the same for every number of rows of x and every tiling: K is cut into PARTS parts of whole
// blocks of 128 columns; a plane's product of a block is one chain of eight m16n8k16; planes and blocks
// ascend; parts are added in order.
//
// Bound: making the operands (two integer instructions for 64 signs) and memory.
// Reference: double on the CPU (matmul_lookup_gpu_test.cpp).
//
// Macros: as matmul_lookup.cu, but TOKENS is 8, 16 or 32.
#include "planes.cuh"

constexpr int kTokenTiles = TOKENS / 8;
constexpr int kGroups = 4 * SETS;  // of 8 rows of w

// This lane's signs of a block of 8 rows, and its row's scales.
struct Signs {
  u32 plane[PLANES];
};
DEVICE Signs load_signs(const u8* block, int lane) {
  Signs s;
#pragma unroll
  for (int i = 0; i < PLANES; ++i)
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];"
                 : "=r"(s.plane[i])
                 : "l"(block + i * 128 + lane * 4));
  return s;
}
struct RowScales {
  u16 alpha[PLANES];
  float bias;
};
DEVICE RowScales load_scales(const u8* block, int row) {
  RowScales s;
#pragma unroll
  for (int i = 0; i < PLANES; ++i)
    s.alpha[i] = *reinterpret_cast<const u16*>(block + kAlphas + (i * 8 + row) * 2);
  s.bias = *reinterpret_cast<const float*>(block + kBiases + row * 4);
  return s;
}

DEVICE void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Bits i and i + 16 as a pair of bf16: -1 where set.
template <int i>
DEVICE u32 minus_signs(u32 w) {
  u32 y;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(w << (15 - i)), "r"(0x80008000u), "r"(0x3f803f80u));
  return y;
}
template <int i>
DEVICE void two_columns(float (&c)[kTokenTiles][4], u32 upper, u32 lower, const u32 (&x)[kTokenTiles][16]) {
  const u32 a0 = minus_signs<i>(upper), a1 = minus_signs<i>(lower), a2 = minus_signs<i + 1>(upper),
            a3 = minus_signs<i + 1>(lower);
#pragma unroll
  for (int n = 0; n < kTokenTiles; ++n) multiply(c[n], a0, a1, a2, a3, x[n][i], x[n][i + 1]);
}

extern __shared__ __align__(16) u8 shared[];

// grid: (tiles of kTileRows rows of all segments, passes of TOKENS rows of x)
extern "C" __global__ void __launch_bounds__(kThreads, MIN_BLOCKS)
    matmul_signs(const __grid_constant__ Arguments p) {
  const int lane = int(threadIdx.x) & 31, part = int(threadIdx.x) >> 5, t = lane & 3;
  const Segment& s = segment_of_block(p);
  const int row0 = (int(blockIdx.x) - s.first_tile) * kTileRows, token0 = int(blockIdx.y) * TOKENS;
  const int blocks = int(p.cols / kColumns);
  const int begin = int(i64(blocks) * part / PARTS), end = int(i64(blocks) * (part + 1) / PARTS);

  const auto place = [&](int group, int block) {
    // Groups past the end: the last one is read, and nothing written.
    const int number = min((row0 >> 3) + (GATED ? group & 3 : group), (s.rows - 1) >> 3);
    return (GATED && group >= 4 ? s.up : s.w) + (i64(number) * blocks + block) * kBlockBytes;
  };
  Signs next[kGroups] = {};
  if (begin < end) {
#pragma unroll
    for (int i = 0; i < kGroups; ++i) next[i] = load_signs(place(i, begin), lane);
  }
  release_next();
  wait_for_previous();

  float total[2 * SETS][kTokenTiles][4] = {};
#pragma unroll 1
  for (int block = begin; block < end; ++block) {
    // Columns c and c + 16 of this lane's 32, of row lane / 4 of each tile of x.
    u32 x[kTokenTiles][16];
    float x_sum[kTokenTiles][4] = {};
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const int token = token0 + 8 * n + (lane >> 2);
      const uint4* from =
          reinterpret_cast<const uint4*>(p.x + i64(token) * p.cols + i64(block) * kColumns + 32 * t);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint4 zero = make_uint4(0, 0, 0, 0), a = token < p.m ? from[h] : zero,
                    b = token < p.m ? from[h + 2] : zero;
        const u32 low[4] = {a.x, a.y, a.z, a.w}, high[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          x[n][8 * h + 2 * i] = __byte_perm(low[i], high[i], 0x5410);
          x[n][8 * h + 2 * i + 1] = __byte_perm(low[i], high[i], 0x7632);
        }
      }
      constexpr u32 kOnes = 0x3f803f80u;
#pragma unroll
      for (int i = 0; i < 16; i += 2) multiply(x_sum[n], kOnes, kOnes, kOnes, kOnes, x[n][i], x[n][i + 1]);
    }
#pragma unroll
    for (int tile = 0; tile < 2 * SETS; ++tile) {
      const Signs upper = next[2 * tile], lower = next[2 * tile + 1];
      const u8 *const upper_block = place(2 * tile, block), *const lower_block = place(2 * tile + 1, block);
      const RowScales above = load_scales(upper_block, lane >> 2),
                      below = load_scales(lower_block, lane >> 2);
      if (block + 1 < end) {
        next[2 * tile] = load_signs(upper_block + kBlockBytes, lane);
        next[2 * tile + 1] = load_signs(lower_block + kBlockBytes, lane);
      }
#pragma unroll
      for (int i = 0; i < PLANES; ++i) {
        float c[kTokenTiles][4] = {};
        two_columns<0>(c, upper.plane[i], lower.plane[i], x);
        two_columns<2>(c, upper.plane[i], lower.plane[i], x);
        two_columns<4>(c, upper.plane[i], lower.plane[i], x);
        two_columns<6>(c, upper.plane[i], lower.plane[i], x);
        two_columns<8>(c, upper.plane[i], lower.plane[i], x);
        two_columns<10>(c, upper.plane[i], lower.plane[i], x);
        two_columns<12>(c, upper.plane[i], lower.plane[i], x);
        two_columns<14>(c, upper.plane[i], lower.plane[i], x);
        const float a = -from_f16(above.alpha[i]), b = -from_f16(below.alpha[i]);
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
          for (int j = 0; j < 4; ++j) total[tile][n][j] = fmaf(j < 2 ? a : b, c[n][j], total[tile][n][j]);
        }
      }
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          total[tile][n][j] = fmaf(j < 2 ? above.bias : below.bias, x_sum[n][j], total[tile][n][j]);
      }
    }
  }

  auto* const partials = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int tile = 0; tile < 2 * SETS; ++tile) {
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        partials[(part * TOKENS + 8 * n + 2 * t + j % 2) * SETS * 32 + 16 * tile + 8 * (j / 2) +
                 (lane >> 2)] = total[tile][n][j];
    }
  }
  __syncthreads();
  finish(p, s, partials, row0, token0);
}
