// Attention over the paged cache, one warp per (row, head), keys in order: the reference of the fast kernels,
// and the f32 mode. X: element type of q and y; C: element type of the cache.
#include "device.cuh"

#ifndef X
#define X float
#endif
#ifndef C
#define C float
#endif

// The cache of one layer as src/kv/pool.h lays it out: [page][kv_head][token][head_dim]. Row r is token
// positions[r] of sequence sequence_of[r], whose pages begin at tables[starts[sequence]] and hold
// lengths[sequence] tokens.

extern "C" __global__ void append_plain(const X* k, const X* v, C* cache_k, C* cache_v, const i32* tables,
                                        const i32* starts, const i32* sequence_of, const i32* positions,
                                        int kv_heads, int dim_k, int dim_v, int page_tokens) {
  wait_for_previous();
  const int row = blockIdx.x, position = positions[row];
  const i64 page = tables[i64(starts[sequence_of[row]]) + position / page_tokens];
  const int slot = position % page_tokens;
  for (int i = threadIdx.x; i < kv_heads * dim_k; i += blockDim.x)
    store_from_float(cache_k + ((page * kv_heads + i / dim_k) * page_tokens + slot) * dim_k + i % dim_k,
                     load_as_float(k + i64(row) * kv_heads * dim_k + i));
  for (int i = threadIdx.x; i < kv_heads * dim_v; i += blockDim.x)
    store_from_float(cache_v + ((page * kv_heads + i / dim_v) * page_tokens + slot) * dim_v + i % dim_v,
                     load_as_float(v + i64(row) * kv_heads * dim_v + i));
}

// At most 256 elements per head: eight per lane.
extern "C" __global__ void attention_plain(const X* q, X* y, const C* cache_k, const C* cache_v,
                                           const i32* tables, const i32* starts, const i32* lengths,
                                           const i32* sequence_of, const i32* positions, int heads,
                                           int kv_heads, int dim_k, int dim_v, int page_tokens, float scale,
                                           int window, int causal, float softcap, const float* sinks,
                                           const float* slopes) {
  wait_for_previous();
  const int row = blockIdx.x, head = blockIdx.y, lane = threadIdx.x, kv_head = head / (heads / kv_heads);
  const int position = positions[row], begin = window > 0 ? max(0, position - window + 1) : 0;
  int end = causal ? position + 1 : lengths[sequence_of[row]];
  if (window > 0 && end - position > window) end = position + window;
  const i32* table = tables + starts[sequence_of[row]];
  float query[8], sum[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int at = lane + 32 * i;
    query[i] = at < dim_k ? load_as_float(q + (i64(row) * heads + head) * dim_k + at) * scale : 0.f;
    sum[i] = 0;
  }
  float largest = -__int_as_float(0x7f800000), total = 0;
  if (sinks) largest = sinks[head], total = 1;
  for (int t = begin; t < end; ++t) {
    const i64 at_page = (i64(table[t / page_tokens]) * kv_heads + kv_head) * page_tokens + t % page_tokens;
    float s = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (lane + 32 * i < dim_k) s += query[i] * load_as_float(cache_k + at_page * dim_k + lane + 32 * i);
    s = warp_sum(s);
    if (softcap != 0.f) s = softcap * tanhf(s / softcap);
    if (slopes) s += slopes[head] * float(t - position);
    const float next = fmaxf(largest, s), old = expf(largest - next), p = expf(s - next);
    total = total * old + p;
    largest = next;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (lane + 32 * i < dim_v)
        sum[i] = sum[i] * old + p * load_as_float(cache_v + at_page * dim_v + lane + 32 * i);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (lane + 32 * i < dim_v)
      store_from_float(y + (i64(row) * heads + head) * dim_v + lane + 32 * i, sum[i] / total);
}
