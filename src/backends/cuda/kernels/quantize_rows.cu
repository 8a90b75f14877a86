// Rows in e4m3 with a scale each: x[t, k] = scales[t] y[t, k], scales[t] = max |x[t]| / 448. One block per
// row. Bound: memory, 3 bytes per element.
//
// BLOCKED: of every 128 columns, in the order in which a row of a block of the form e4m3_g128 holds them
// (weights.cpp, Place::byte8): products sum over K in any order as long as both sides have the same.
#include "device.cuh"

#ifndef BLOCKED
#define BLOCKED 0
#endif

// The larger 8 bits are of `high`.
DEVICE u32 to_e4m3x2(float low, float high) {
  u16 y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
  return y;
}

// columns: a multiple of 8; rows contiguous, x on 16 bytes. grid: rows. A row up to kHeld x 2048 columns
// stays in registers between the search for its largest element and its codes.
extern "C" __global__ void __launch_bounds__(256)
    quantize_rows(const bf16* x, u8* y, float* scales, int columns) {
  constexpr int kHeld = 7;
  wait_for_previous();
  release_next();
  const uint4* from = reinterpret_cast<const uint4*>(x + i64(blockIdx.x) * columns);
  const int chunks = columns / 8;
  uint4 held[kHeld];
  float largest = 0;
  const auto note = [&](const uint4& v) {
    const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; ++j)
      largest = fmaxf(largest, fmaxf(fabsf(low_bf16(pairs[j])), fabsf(high_bf16(pairs[j]))));
  };
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int i = int(threadIdx.x) + h * 256;
    held[h] = i < chunks ? from[i] : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int h = 0; h < kHeld; ++h) note(held[h]);
  for (int i = int(threadIdx.x) + kHeld * 256; i < chunks; i += 256) note(from[i]);
  __shared__ float of_warp[8];
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; ++i) largest = fmaxf(largest, of_warp[i]);
  const float factor = largest > 0 ? 448.f / largest : 0.f;
  uint2* to = reinterpret_cast<uint2*>(y + i64(blockIdx.x) * columns);
  const auto write = [&](int i, const uint4& v) {
    const u32 pairs[4] = {v.x, v.y, v.z, v.w};
    u32 out[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) out[j] = to_e4m3x2(low_bf16(pairs[j]) * factor, high_bf16(pairs[j]) * factor);
    if constexpr (BLOCKED) {
      // Elements 8 t to 8 t + 7 of step j: 16 bytes per lane t and half j / 2, and 0 2 1 3 in a word.
      const int step = i / 4 % 4, t = i % 4;
      to[i / 16 * 16 + step / 2 * 8 + t * 2 + step % 2] =
          make_uint2(__byte_perm(out[0], out[1], 0x5140), __byte_perm(out[2], out[3], 0x5140));
    } else {
      to[i] = make_uint2(out[0] | out[1] << 16, out[2] | out[3] << 16);
    }
  };
#pragma unroll
  for (int h = 0; h < kHeld; ++h)
    if (const int i = int(threadIdx.x) + h * 256; i < chunks) write(i, held[h]);
  for (int i = int(threadIdx.x) + kHeld * 256; i < chunks; i += 256) write(i, from[i]);
  if (threadIdx.x == 0) scales[blockIdx.x] = largest / 448.f;
}
