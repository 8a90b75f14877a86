// Rows sorted by expert, cut into tiles of rows that do not cross experts.
#pragma once

#include "device.cuh"

constexpr int kMostExperts = 512;

// ends[e]: tiles of experts 0 .. e, of `rows` rows each; begins[0 .. experts]: first row of each expert. All
// threads of one warp; the others of the block must meet it afterwards.
DEVICE void count_expert_tiles(const i32* begins, int experts, int rows, i32* ends) {
  const int lane = int(threadIdx.x) % 32;
  int before = 0;
  for (int first = 0; first < experts; first += 32) {
    const int e = first + lane;
    int tiles = e < experts ? (begins[e + 1] - begins[e] + rows - 1) / rows : 0;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int left = __shfl_up_sync(0xffffffffu, tiles, d);
      if (lane >= d) tiles += left;
    }
    if (e < experts) ends[e] = before + tiles;
    before += __shfl_sync(0xffffffffu, tiles, 31);
  }
}

// The expert whose tiles hold number `tile`, which is below ends[experts - 1].
DEVICE int expert_of_tile(const i32* ends, int experts, int tile) {
  int low = 0, high = experts - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (tile < ends[middle])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}
