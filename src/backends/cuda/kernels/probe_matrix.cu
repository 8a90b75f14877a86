// Rate and latency of mma.sync. TYPE: of the operands (probe.cuh); HALF_SUM 1: f16 with f16 sums; CHAINS:
// independent sums per warp.
#include "probe.cuh"

#if TYPE == INT8
typedef i32 Sum;
#else
typedef float Sum;
#endif

// One product of 16 x 8 x 32 bytes of K.
DEVICE void multiply(Sum (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#define MMA(shape, types, bound)                                                    \
  asm volatile("mma.sync.aligned." shape ".row.col." types                          \
               " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                    \
               "{%0, %1, %2, %3};"                                                  \
               : "+" bound(d[0]), "+" bound(d[1]), "+" bound(d[2]), "+" bound(d[3]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#if TYPE == BF16
  MMA("m16n8k16", "f32.bf16.bf16.f32", "f");
#elif TYPE == F16 && HALF_SUM
  u32(&h)[4] = reinterpret_cast<u32(&)[4]>(d);
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
      : "+r"(h[0]), "+r"(h[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif TYPE == F16
  MMA("m16n8k16", "f32.f16.f16.f32", "f");
#elif TYPE == TF32
  MMA("m16n8k8", "f32.tf32.tf32.f32", "f");
#elif TYPE == E4M3
  MMA("m16n8k32", "f32.e4m3.e4m3.f32", "f");
#else
  MMA("m16n8k32", "s32.s8.s8.s32", "r");
#endif
}

// out[block]: cycles. sums: element 0 of every thread's first sum, to be checked: rounds * K for operands of
// ones.
extern "C" __global__ void __launch_bounds__(512) multiply_mma(u32 rounds, u32 random, u64* out, Sum* sums) {
  const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  u32 a[4], b[CHAINS][2];  // a right operand for each sum: equal products would be computed once
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = operand<TYPE>(thread * 64 + i, random);
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) {
    b[c][0] = operand<TYPE>(thread * 64 + 8 + 2 * c, random);
    b[c][1] = operand<TYPE>(thread * 64 + 9 + 2 * c, random);
  }
  Sum d[CHAINS][4];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) d[c][i] = 0;
  __syncthreads();
  const u64 begin = cycles();
  for (u32 r = 0; r < rounds; r += 4)
#pragma unroll
    for (int u = 0; u < 4; ++u)
#pragma unroll
      for (int c = 0; c < CHAINS; ++c) multiply(d[c], a, b[c]);
  Sum sum = d[0][0];
#pragma unroll
  for (int c = 1; c < CHAINS; ++c)
    if (d[c][0] != d[0][0]) sum = -1;  // of ones all are equal
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = cycles() - begin;
  sums[thread] = sum;
}

// Rate and latency of the ordinary units: KIND 0 f32 fma, 1 f64 fma, 2 f16 pairs fma, 3 integer multiply-add.
extern "C" __global__ void __launch_bounds__(1024)
    multiply_add(u32 rounds, u32 kind, u32 chains, float x, u64* out, float* sums) {
  float f[8];
  double g[8];
  u32 h[8];
#pragma unroll
  for (int c = 0; c < 8; ++c) f[c] = x * c, g[c] = x * c, h[c] = threadIdx.x + c;
  const double y = x;
  const u32 n = __float_as_uint(x);
  __syncthreads();
  const u64 begin = cycles();
#define ALL(count, text, d, bound, operand)              \
  for (u32 r = 0; r < rounds; r += 4)                    \
  _Pragma("unroll") for (int u = 0; u < 4; ++u) _Pragma( \
      "unroll") for (int c = 0; c < count; ++c) asm volatile(text : "+" bound(d[c]) : bound(operand))
#define EITHER(text, d, bound, operand) \
  {                                     \
    if (chains == 1) {                  \
      ALL(1, text, d, bound, operand);  \
    } else {                            \
      ALL(8, text, d, bound, operand);  \
    }                                   \
  }
  if (kind == 0) EITHER("fma.rn.f32 %0, %0, %1, %1;", f, "f", x)
  if (kind == 1) EITHER("fma.rn.f64 %0, %0, %1, %1;", g, "d", y)
  if (kind == 2) EITHER("fma.rn.f16x2 %0, %0, %1, %1;", h, "r", n)
  if (kind == 3) EITHER("mad.lo.s32 %0, %0, %1, %1;", h, "r", n)
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = cycles() - begin;
  float sum = 0;
#pragma unroll
  for (int c = 0; c < 8; ++c) sum += f[c] + float(g[c]) + float(h[c]);
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
