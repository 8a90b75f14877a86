// Latency and bandwidth of the memories, by chains of addresses and by streams. WIDTH: bytes per access of
// the streams, 4, 8 or 16. Measured as in "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture"
// (Luo et al., 2024).
#include "probe.cuh"

template <int bytes>
struct Word;
template <>
struct alignas(4) Word<4> {
  u32 x;
};
template <>
struct alignas(8) Word<8> {
  u32 x, y;
};
template <>
struct alignas(16) Word<16> {
  u32 x, y, z, w;
};

// How a load goes: near may hit L1, far only L2, once leaves nothing behind.
#define LOAD(name, modifier)                                                                   \
  DEVICE u32 name(const Word<4>* p) {                                                          \
    u32 a;                                                                                     \
    asm volatile("ld.global." modifier ".u32 %0, [%1];" : "=r"(a) : "l"(p));                   \
    return a;                                                                                  \
  }                                                                                            \
  DEVICE u32 name(const Word<8>* p) {                                                          \
    u32 a, b;                                                                                  \
    asm volatile("ld.global." modifier ".v2.u32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "l"(p)); \
    return a ^ b;                                                                              \
  }                                                                                            \
  DEVICE u32 name(const Word<16>* p) {                                                         \
    u32 a, b, c, d;                                                                            \
    asm volatile("ld.global." modifier ".v4.u32 {%0, %1, %2, %3}, [%4];"                       \
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d)                                          \
                 : "l"(p));                                                                    \
    return a ^ b ^ c ^ d;                                                                      \
  }
LOAD(load_near, "ca")
LOAD(load_far, "cg")
LOAD(load_once, "cs")

// order[i] is the place of the i-th node of a ring; each node holds the address of the next.
extern "C" __global__ void link_ring(u64 base, const u32* order, u32 count, u32 stride) {
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    *reinterpret_cast<u64*>(base + u64(order[i]) * stride) =
        base + u64(order[i + 1 == count ? 0 : i + 1]) * stride;
}

// One thread walks the ring: `warm` steps unmeasured, then `steps`. out: cycles, and where it arrived.
extern "C" __global__ void walk_ring(u64 at, u32 warm, u32 steps, u32 near, u64* out) {
  u64 p = at, begin = 0, end = 0;
  if (near) {
    for (u32 i = 0; i < warm; ++i) asm volatile("ld.global.ca.u64 %0, [%0];" : "+l"(p)::"memory");
    begin = cycles();
#pragma unroll 16
    for (u32 i = 0; i < steps; ++i) asm volatile("ld.global.ca.u64 %0, [%0];" : "+l"(p)::"memory");
    arrived(p);
    end = cycles();
  } else {
    for (u32 i = 0; i < warm; ++i) asm volatile("ld.global.cg.u64 %0, [%0];" : "+l"(p)::"memory");
    begin = cycles();
#pragma unroll 16
    for (u32 i = 0; i < steps; ++i) asm volatile("ld.global.cg.u64 %0, [%0];" : "+l"(p)::"memory");
    arrived(p);
    end = cycles();
  }
  out[0] = end - begin, out[1] = p;
}

// The cycles of every single load of a ring through L2: a distribution, with the clock's own cost in it.
extern "C" __global__ void time_each(u64 at, u32 count, u32* out) {
  u64 p = at;
  for (u32 pass = 0; pass < 2; ++pass)  // the first one warms
    for (u32 i = 0; i < count; ++i) {
      const u64 begin = cycles();
      asm volatile("ld.global.cg.u64 %0, [%0];" : "+l"(p)::"memory");
      arrived(p);
      out[i] = u32(cycles() - begin);
    }
  if (p == 1) out[0] = 0;
}

// The same within shared memory: one thread, offsets instead of addresses.
extern "C" __global__ void walk_shared(u32 count, u32 steps, u64* out) {
  extern __shared__ u32 ring[];
  // A stride that is odd in nodes visits them all.
  for (u32 i = threadIdx.x; i < count; i += blockDim.x)
    ring[i] = u32(__cvta_generic_to_shared(ring + (i + 37) % count));
  __syncthreads();
  if (threadIdx.x != 0) return;
  u32 p = u32(__cvta_generic_to_shared(ring));
  const u64 begin = cycles();
#pragma unroll 16
  for (u32 i = 0; i < steps; ++i) asm volatile("ld.shared.u32 %0, [%0];" : "+r"(p)::"memory");
  const u64 end = cycles();
  out[0] = end - begin, out[1] = p;
}

extern "C" __global__ void read_once(const Word<WIDTH>* data, i64 count, u32* out) {
  const i64 stride = i64(gridDim.x) * blockDim.x;
  u32 sum = 0;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i + 7 * stride < count; i += 8 * stride)
#pragma unroll
    for (int j = 0; j < 8; ++j) sum ^= load_once(data + i + j * stride);
  if (sum == 0x9e3779b9u) *out = sum;
}
extern "C" __global__ void write_once(Word<WIDTH>* data, i64 count) {
  const i64 stride = i64(gridDim.x) * blockDim.x;
  u32 lanes[WIDTH / 4];
#pragma unroll
  for (u32& lane : lanes) lane = threadIdx.x;
  const Word<WIDTH> word = reinterpret_cast<const Word<WIDTH>&>(lanes);
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) data[i] = word;
}
extern "C" __global__ void copy_once(const Word<WIDTH>* from, Word<WIDTH>* to, i64 count) {
  const i64 stride = i64(gridDim.x) * blockDim.x;
  i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const Word<WIDTH> a = from[i], b = from[i + stride], c = from[i + 2 * stride], d = from[i + 3 * stride];
    to[i] = a, to[i + stride] = b, to[i + 2 * stride] = c, to[i + 3 * stride] = d;
  }
}

// Every block reads all of `data` `rounds` times, from a place of its own on: what fits in L2 comes from
// there.
extern "C" __global__ void read_again(const Word<WIDTH>* data, u32 count, u32 rounds, u32* out) {
  u32 sum = 0, at = u32(u64(blockIdx.x) * count / gridDim.x) / blockDim.x * blockDim.x + threadIdx.x;
  for (u32 i = 0; i < rounds * (count / blockDim.x); i += 4)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sum ^= load_far(data + at);
      at = at + blockDim.x < count ? at + blockDim.x : threadIdx.x;
    }
  if (sum == 0x9e3779b9u) *out = sum;
}

// Every block of kNearThreads reads kNearBytes of its own over and over: L1.
constexpr u32 kNearBytes = 65536, kNearThreads = 1024, kNearLoads = kNearBytes / WIDTH / kNearThreads;
extern "C" __global__ void __launch_bounds__(kNearThreads)
    read_near(const Word<WIDTH>* data, u32 rounds, u64* out) {
  const Word<WIDTH>* mine = data + blockIdx.x * (kNearBytes / WIDTH) + threadIdx.x;
  u32 sum = 0;
  for (u32 j = 0; j < kNearLoads; ++j) sum ^= load_near(mine + j * kNearThreads);
  __syncthreads();
  const u64 begin = cycles();
#pragma unroll 1  // or loads of several rounds become one
  for (u32 r = 0; r < rounds; ++r)
#pragma unroll
    for (u32 j = 0; j < kNearLoads; ++j) sum ^= load_near(mine + j * kNearThreads);
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = cycles() - begin;
  if (sum == 0x9e3779b9u) *out = sum;
}
// The same from shared memory.
extern "C" __global__ void __launch_bounds__(kNearThreads) read_shared(u32 rounds, u64* out) {
  extern __shared__ uint4 memory[];
  u32* words = reinterpret_cast<u32*>(memory);
  for (u32 i = threadIdx.x; i < kNearBytes / 4; i += kNearThreads) words[i] = i;
  __syncthreads();
  const u32 base = u32(__cvta_generic_to_shared(memory)) + threadIdx.x * WIDTH;
  u32 sum = 0;
  const u64 begin = cycles();
#pragma unroll 1  // or loads of several rounds become one
  for (u32 r = 0; r < rounds; ++r)
#pragma unroll
    for (u32 j = 0; j < kNearLoads; ++j) {
      u32 a = 0, b = 0, c = 0, d = 0;
      const u32 p = base + j * kNearThreads * WIDTH;
      if constexpr (WIDTH == 4) {
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(a) : "r"(p));
      } else if constexpr (WIDTH == 8) {
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "r"(p));
      } else {
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                     : "r"(p));
      }
      sum ^= a ^ b ^ c ^ d;
    }
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = cycles() - begin;
  if (sum == 0x9e3779b9u) *out = sum;
}

extern "C" __global__ void nothing() {}
