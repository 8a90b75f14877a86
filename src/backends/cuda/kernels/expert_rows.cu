// Rows that choose experts, sorted by expert for the products of matmul_many. Bound: launch; memory of the
// copied rows.
#include "expert_tiles.cuh"

// chosen[p]: the expert of pair p. begins[e]: pairs of experts below e, begins[experts] all; order[i]: the
// pair at place i. Pairs of one expert lie in any order: a product's rows do not depend on their places. One
// block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024)
    sort_pairs(const i32* chosen, int pairs, int experts, i32* begins, i32* order) {
  __shared__ i32 next[kMostExperts];
  wait_for_previous();
  release_next();
  for (int e = threadIdx.x; e < experts; e += 1024) next[e] = 0;
  __syncthreads();
  for (int p = threadIdx.x; p < pairs; p += 1024) atomicAdd(&next[chosen[p]], 1);
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    int before = 0;
    for (int first = 0; first < experts; first += 32) {
      const int e = first + lane, own = e < experts ? next[e] : 0;
      int sum = own;
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const int left = __shfl_up_sync(0xffffffffu, sum, d);
        if (lane >= d) sum += left;
      }
      if (e < experts) begins[e] = next[e] = before + sum - own;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
    if (lane == 0) begins[experts] = before;
  }
  __syncthreads();
  for (int p = threadIdx.x; p < pairs; p += 1024) order[atomicAdd(&next[chosen[p]], 1)] = p;
}

// y[i] = x[order[i] / share], rows of `columns` (a multiple of 8) bf16. grid: pairs.
extern "C" __global__ void __launch_bounds__(128)
    gather_pairs(const bf16* x, const i32* order, int share, int columns, bf16* y) {
  wait_for_previous();
  release_next();
  const uint4* from = reinterpret_cast<const uint4*>(x + i64(order[blockIdx.x] / share) * columns);
  uint4* to = reinterpret_cast<uint4*>(y + i64(blockIdx.x) * columns);
  for (int i = threadIdx.x; i < columns / 8; i += 128) to[i] = from[i];
}
