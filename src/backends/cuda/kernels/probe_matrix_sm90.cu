// Rate and latency of wgmma: m64 nN, 32 bytes of K. TYPE: of the operands (probe.cuh); N: 8 to 256; REGISTERS
// 1: the left operand from registers instead of shared memory.
#include "hopper.cuh"
#include "probe.cuh"

#if TYPE == INT8
typedef i32 Sum;
#define BOUND "+r"
#define TAIL ", p"
#elif TYPE == BF16 || TYPE == F16
typedef float Sum;
#define BOUND "+f"
#if REGISTERS
#define TAIL ", p, 1, 1, 0"
#else
#define TAIL ", p, 1, 1, 0, 0"
#endif
#else
typedef float Sum;
#define BOUND "+f"
#define TAIL ", p, 1, 1"
#endif
#if TYPE == BF16
#define TYPES "k16.f32.bf16.bf16"
#elif TYPE == F16
#define TYPES "k16.f32.f16.f16"
#elif TYPE == TF32
#define TYPES "k8.f32.tf32.tf32"
#elif TYPE == E4M3
#define TYPES "k32.f32.e4m3.e4m3"
#else
#define TYPES "k32.s32.s8.s8"
#endif

#define OUT4(i) BOUND(d[i]), BOUND(d[i + 1]), BOUND(d[i + 2]), BOUND(d[i + 3])
#define OUT16(i) OUT4(i), OUT4(i + 4), OUT4(i + 8), OUT4(i + 12)
#define OUT64(i) OUT16(i), OUT16(i + 16), OUT16(i + 32), OUT16(i + 48)
#if REGISTERS
#define PRODUCT(shape, sums, a0, a1, a2, a3, b, ...)                                                         \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned." shape TYPES " {" sums \
               "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " b TAIL ";\n}"                                         \
               : __VA_ARGS__                                                                                 \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right))
#else
#define PRODUCT(shape, sums, a, b, a2, a3, a4, ...)                                                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned." shape TYPES " {" sums \
               "}, " a ", " b TAIL ";\n}"                                                                    \
               : __VA_ARGS__                                                                                 \
               : "l"(left), "l"(right))
#endif

#if REGISTERS
typedef u32 Left[4];
#else
typedef u64 Left;
#endif

DEVICE void multiply(Sum (&d)[N / 2], const Left& left, u64 right) {
#if N == 8
  PRODUCT("m64n8", "%0, %1, %2, %3", "%4", "%5", "%6", "%7", "%8", OUT4(0));
#elif N == 16
  PRODUCT("m64n16", "%0, %1, %2, %3, %4, %5, %6, %7", "%8", "%9", "%10", "%11", "%12", OUT4(0), OUT4(4));
#elif N == 32
  PRODUCT("m64n32", WGMMA_REGISTERS_0_15, "%16", "%17", "%18", "%19", "%20", OUT16(0));
#elif N == 64
  PRODUCT("m64n64", WGMMA_REGISTERS_0_31, "%32", "%33", "%34", "%35", "%36", OUT16(0), OUT16(16));
#elif N == 128
  PRODUCT("m64n128", WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63, "%64", "%65", "%66", "%67", "%68",
          OUT64(0));
#else
  PRODUCT("m64n256",
          WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63 ", " WGMMA_REGISTERS_64_95
                               ", " WGMMA_REGISTERS_96_127,
          "%128", "%129", "%130", "%131", "%132", OUT64(0), OUT64(64));
#endif
}

// Each warpgroup of a block multiplies tiles of its own by a tile of the block's: `rounds` groups of
// `together` steps (a multiple of 4), waiting for each group. sums: element 0 of every thread: steps * K for
// operands of ones.
extern "C" __global__ void __launch_bounds__(256, 1)
    multiply_wgmma(u32 rounds, u32 together, u32 random, u64* out, Sum* sums) {
  extern __shared__ u32 memory[];
  const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  const u32 base = (shared_address(memory) + 1023) & ~1023u;
  const u32 words = (N * 128 + (blockDim.x / 128) * 64 * 128) / 4;
  for (u32 i = threadIdx.x; i < words; i += blockDim.x) {
    const u32 value = operand<TYPE>(blockIdx.x * 65536 + i, random);
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(base + i * 4), "r"(value) : "memory");
  }
  publish_shared();
  __syncthreads();
  const u64 right = tile_descriptor(base);
#if REGISTERS
  u32 left[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) left[i] = operand<TYPE>(thread * 4 + i, random);
#else
  const u64 left = tile_descriptor(base + N * 128 + threadIdx.x / 128 * 64 * 128);
#endif
  Sum d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 0;
  __syncthreads();
  const u64 begin = cycles();
  for (u32 r = 0; r < rounds; ++r) {
    wgmma_begin();
    for (u32 t = 0; t < together; t += 4)
#pragma unroll
      for (int k = 0; k < 4; ++k)
#if REGISTERS
        multiply(d, left, right + k * 2);
#else
        multiply(d, left + k * 2, right + k * 2);
#endif
    wgmma_commit();
    wgmma_wait<0>();
  }
  const u64 end = cycles();
  if (threadIdx.x == 0) out[blockIdx.x] = end - begin;
  Sum sum = d[0];
#pragma unroll
  for (int i = 1; i < N / 2; ++i)
    if (!random && d[i] != d[0]) sum = -1;
  sums[thread] = sum;
}
