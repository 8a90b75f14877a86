// What every kernel of cairn includes: types, conversions and the instructions that CUDA C++ has no name for.
// Compiled by NVRTC without any CUDA header, so that machines without a toolkit can build kernels.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef int i32;
typedef long long i64;
typedef u16 bf16;  // bits of a bfloat16
typedef u16 f16;   // bits of a half

#define DEVICE __device__ __forceinline__

// Programmatic dependent launch (LaunchShape::overlap_previous): nothing that the previous kernel writes may
// be read, and nothing it reads may be written, before wait_for_previous(). Weights may.
DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may be launched from here on (its threads start when all blocks of this one have come here
// or ended).
DEVICE void release_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

DEVICE float from_bf16(bf16 x) { return __uint_as_float(u32(x) << 16); }
DEVICE float low_bf16(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float high_bf16(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
// Rounded to nearest even; NaN stays NaN.
DEVICE bf16 to_bf16(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
// low in bits 0..15
DEVICE u32 to_bf16x2(float low, float high) {
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
DEVICE float from_f16(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
DEVICE f16 to_f16(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}

// Element types of activations: load and store through float.
template <typename T>
DEVICE float load_as_float(const T* p);
template <>
DEVICE float load_as_float<float>(const float* p) {
  return *p;
}
template <>
DEVICE float load_as_float<bf16>(const bf16* p) {
  return from_bf16(*p);
}
template <typename T>
DEVICE void store_from_float(T* p, float x);
template <>
DEVICE void store_from_float<float>(float* p, float x) {
  *p = x;
}
template <>
DEVICE void store_from_float<bf16>(bf16* p, float x) {
  *p = to_bf16(x);
}

// Sum over a warp in a fixed order; every lane gets it.
DEVICE float warp_sum(float x) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}
