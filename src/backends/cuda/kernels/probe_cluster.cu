// Shared memory of other blocks of a cluster: latency by a chain, bandwidth by streams; and bulk copies of
// global to shared memory.
#include "hopper.cuh"
#include "probe.cuh"

DEVICE u32 at_rank(u32 address, u32 rank) {
  u32 remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  return remote;
}

// One cluster. Thread 0 of rank 0 walks a ring in the memory of each rank; out[rank]: cycles per `steps`.
extern "C" __global__ void walk_cluster(u32 count, u32 steps, u32 size, u64* out) {
  extern __shared__ u32 ring[];
  const u32 base = shared_address(ring);
  // Offsets within the ring: the same in every block.
  for (u32 i = threadIdx.x; i < count; i += blockDim.x) ring[i] = (i + 37) % count * 4;
  cluster_meet();
  if (cluster_rank() == 0 && threadIdx.x == 0)
    for (u32 rank = 0; rank < size; ++rank) {
      const u32 remote = at_rank(base, rank);
      u32 p = 0;
      u64 begin = 0;
      for (u32 pass = 0; pass < 2; ++pass) {
        begin = cycles();
#pragma unroll 16
        for (u32 i = 0; i < steps; ++i) {
          u32 address = remote + p;
          asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(p) : "r"(address) : "memory");
        }
      }
      out[rank * 2] = cycles() - begin, out[rank * 2 + 1] = p;
    }
  cluster_meet();
}

// Every block reads `count` 16-byte words `rounds` times: pattern 0 its own, 1 its right neighbour's (a
// ring), 2 its pair's, 3 all from rank 0.
extern "C" __global__ void read_cluster(u32 count, u32 rounds, u32 size, u32 pattern, u64* out) {
  extern __shared__ uint4 memory[];
  u32* words = reinterpret_cast<u32*>(memory);
  for (u32 i = threadIdx.x; i < count * 4; i += blockDim.x) words[i] = i;
  const u32 rank = cluster_rank();
  const u32 from = pattern == 0 ? rank : pattern == 1 ? (rank + 1) % size : pattern == 2 ? rank ^ 1u : 0;
  const u32 remote = at_rank(shared_address(memory), from);
  u32 sum = 0;
  cluster_meet();
  const u64 begin = cycles();
  for (u32 r = 0; r < rounds; ++r)
#pragma unroll 8
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
      u32 a, b, c, d;
      asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                   : "r"(remote + i * 16));
      sum ^= a ^ b ^ c ^ d;
    }
  __syncthreads();
  const u64 end = cycles();
  cluster_meet();  // nobody leaves while its memory is read
  if (threadIdx.x == 0) out[blockIdx.x] = end - begin;
  if (sum == 0x9e3779b9u) *out = sum;
}

// Thread 0 of each block streams its part of `data` into `stages` places of shared memory, `bytes` at a time.
extern "C" __global__ void copy_bulk(u64 data, u64 part, u32 bytes, u32 stages, u64* out) {
  extern __shared__ uint4 memory[];
  __shared__ u64 barriers[32];
  if (threadIdx.x != 0) return;
  const u32 base = (shared_address(memory) + 127) & ~127u;
  const u32 barrier = shared_address(barriers);
  for (u32 s = 0; s < stages; ++s) barrier_init(barrier + s * 8, 1);
  barriers_ready();
  const u64 from = data + blockIdx.x * part;
  const u32 loads = u32(part / bytes);
  const auto load = [&](u32 i) {
    const u32 s = i % stages;
    barrier_expect(barrier + s * 8, bytes);
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            base + s * bytes),
        "l"(from + u64(i) * bytes), "r"(bytes), "r"(barrier + s * 8)
        : "memory");
  };
  for (u32 i = 0; i < stages && i < loads; ++i) load(i);
  for (u32 i = 0; i < loads; ++i) {
    barrier_wait(barrier + i % stages * 8, i / stages & 1);
    if (i + stages < loads) load(i + stages);
  }
  if (blockIdx.x == 0) out[0] = loads;
}

// One bulk copy after another of the same bytes; out: cycles of all.
extern "C" __global__ void time_bulk(u64 data, u32 bytes, u64 stride, u32 places, u32 first, u32 times,
                                     u64* out) {
  extern __shared__ uint4 memory[];
  __shared__ u64 barriers[1];
  if (threadIdx.x != 0) return;
  const u32 base = (shared_address(memory) + 127) & ~127u, barrier = shared_address(barriers);
  barrier_init(barrier, 1);
  barriers_ready();
  u64 begin = cycles();
  for (u32 i = 0; i < 2 * times; ++i) {
    if (i == times) begin = cycles();  // the first half warms
    barrier_expect(barrier, bytes);
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(base),
        "l"(data + (first + i) * 7919u % places * stride), "r"(bytes), "r"(barrier)
        : "memory");
    barrier_wait(barrier, i & 1);
  }
  out[0] = cycles() - begin;
}
