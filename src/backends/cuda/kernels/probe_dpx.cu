// Fused integer additions, minima and maxima (DPX): one instruction on Hopper, several before. OPERATION 0:
// max(a, b, c, 0) of s32; 1: max(a + b, c); 2: max(a + b, c, 0) of pairs of s16; 3: max(a, b, c, 0) of pairs
// of s16.
#include "probe.cuh"

DEVICE u32 step(u32 a, u32 b, u32 c) {
#if OPERATION == 0
  return u32(__vimax3_s32_relu(i32(a), i32(b), i32(c)));
#elif OPERATION == 1
  return u32(__viaddmax_s32(i32(a), i32(b), i32(c)));
#elif OPERATION == 2
  return __viaddmax_s16x2_relu(a, b, c);
#else
  return __vimax3_s16x2_relu(a, b, c);
#endif
}

template <int chains>
DEVICE u32 run(u32 rounds, u32 b, u32 c, u64& begin) {
  u32 a[chains];
#pragma unroll
  for (int i = 0; i < chains; ++i) a[i] = threadIdx.x + i;
  __syncthreads();
  begin = cycles();
  for (u32 r = 0; r < rounds; r += 8)
#pragma unroll
    for (int u = 0; u < 8; ++u)
#pragma unroll
      for (int i = 0; i < chains; ++i) {
        a[i] = step(a[i], b, c);
        asm volatile("" : "+r"(a[i]));  // or a maximum of maxima becomes one
      }
  u32 sum = 0;
#pragma unroll
  for (int i = 0; i < chains; ++i) sum ^= a[i];
  return sum;
}

extern "C" __global__ void __launch_bounds__(1024)
    add_max(u32 rounds, u32 one_chain, u32 b, u32 c, u64* out, u32* sums) {
  u64 begin = 0;
  const u32 sum = one_chain ? run<1>(rounds, b, c, begin) : run<8>(rounds, b, c, begin);
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = cycles() - begin;
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
