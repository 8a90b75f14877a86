// Whole pages of the KV cache, moved: one to another within the cache, or one from and to a run of bytes that
// a copy to or from the host takes at once. Packed: K then V, each [layer][kv_head][token][head_dim].
#include "device.cuh"

template <typename T>
DEVICE void move(const u8* from, u8* to, i64 bytes) {
  const i64 count = bytes / i64(sizeof(T)), stride = i64(gridDim.y) * blockDim.x;
  for (i64 i = i64(blockIdx.y) * blockDim.x + threadIdx.x; i < count; i += stride)
    ((T*)to)[i] = ((const T*)from)[i];
}

// Block x: a layer's keys (the first half of the blocks) or values, which are one run of bytes per page. k,
// v: the segments [layer][page]. A page number below 0: the packed side instead.
extern "C" __global__ void move_page(u8* k, u8* v, i64 k_run, i64 v_run, i64 pages, i32 from, i32 to,
                                     u8* packed) {
  wait_for_previous();
  const i32 layers = gridDim.x / 2, layer = blockIdx.x % layers;
  const bool keys = blockIdx.x < layers;
  const i64 run = keys ? k_run : v_run;
  u8* const segment = (keys ? k : v) + layer * pages * run;
  u8* const aside = packed + (keys ? 0 : layers * k_run) + layer * run;
  const u8* const source = from < 0 ? aside : segment + from * run;
  u8* const target = to < 0 ? aside : segment + to * run;
  // Rows of few bytes in pages of few tokens: no form has less than pairs.
  if (k_run % 16 == 0 && v_run % 16 == 0)
    move<uint4>(source, target, run);
  else
    move<u16>(source, target, run);
}
