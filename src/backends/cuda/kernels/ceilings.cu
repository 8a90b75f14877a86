// What the device can do at best, measured: the ceilings that benches compare with.
#include "device.cuh"

// Reads count * 16 bytes, four independent loads in flight per thread; the sum keeps the loads alive.
extern "C" __global__ void read_all(const uint4* data, i64 count, u32* out) {
  const i64 stride = i64(gridDim.x) * blockDim.x;
  u32 sum = 0;
  i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const uint4 a = __ldcs(data + i), b = __ldcs(data + i + stride), c = __ldcs(data + i + 2 * stride),
                d = __ldcs(data + i + 3 * stride);
    sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
  }
  for (; i < count; i += stride) sum += data[i].x;
  if (sum == 0x9e3779b9u) *out = sum;
}

extern "C" __global__ void nothing() {}
