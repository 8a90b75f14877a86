// Joins the states that attention_decode.cu leaves for the chunks of a row: with m and l the largest logit
// (base 2) and the sum of each chunk, y = sum_c 2^(m_c - M) v_c / sum_c 2^(m_c - M) l_c, M the largest m_c.
// One block per (head, row). Chunk c goes to group c % kGroups of threads, which adds its chunks in ascending
// order; the groups' sums are added in ascending order: the tree depends on the row's number of chunks only.
// Bound: memory (cache), 4 * dim bytes per chunk and head.
#include "attention_logit.cuh"
#include "attention_records.cuh"

using namespace cairn::cuda;

#ifndef DIM_V
#define DIM_V 128
#define HEADS 32
#endif

constexpr int kThreads = 256;
constexpr int kQuads = DIM_V / 4;
constexpr int kGroups = kThreads / kQuads;
static_assert(DIM_V % 4 == 0 && DIM_V <= 4 * kThreads, "");

extern "C" __global__ void __launch_bounds__(kThreads)
    attention_merge(bf16* y, i64 y_stride, const u8* plan, const PlanHead* plan_head, const float* states,
                    const float* state_sums, float* lse, const float* sinks) {
  __shared__ float4 group_out[kGroups][kQuads];
  __shared__ float group_sum[kGroups], warp_most[kThreads / 32];
  release_next();
  const int head = blockIdx.x, row_index = blockIdx.y, thread = threadIdx.x;
  const DecodeRow* row = reinterpret_cast<const DecodeRow*>(plan + plan_head->decode_rows_at) + row_index;
  const int parts = row_index < plan_head->decode_rows ? row->parts : 0;
  // Waits in any case: the next kernel takes the end of this one for the end of the decode kernel too.
  wait_for_previous();
  if (parts <= 1) return;
  const i64 base = i64(row->state_base + row->first_chunk) * HEADS + head;

  float most = SINKS ? sinks[head] * LOG2E : -INFINITE;
  for (int c = thread; c < parts; c += kThreads) most = fmaxf(most, state_sums[(base + i64(c) * HEADS) * 2]);
  most = warp_max(most);
  if (thread % 32 == 0) warp_most[thread / 32] = most;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) most = fmaxf(most, warp_most[w]);
  const float shift = most == -INFINITE ? 0.f : most;  // a mask may hide all

  const int group = thread / kQuads, quad = thread % kQuads;
  if (group < kGroups) {
    float4 out = {0, 0, 0, 0};
    float sum = 0;
#pragma unroll 4
    for (int c = group; c < parts; c += kGroups) {
      const i64 vector = base + i64(c) * HEADS;
      const float weight = exp2_approximate(state_sums[vector * 2] - shift);
      const float4 v = *reinterpret_cast<const float4*>(states + vector * DIM_V + quad * 4);
      sum += weight * state_sums[vector * 2 + 1];
      out.x += weight * v.x, out.y += weight * v.y, out.z += weight * v.z, out.w += weight * v.w;
    }
    group_out[group][quad] = out;
    if (quad == 0) group_sum[group] = sum;
  }
  __syncthreads();
  if (thread < kQuads) {
    float4 out = {0, 0, 0, 0};
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      const float4 v = group_out[i][thread];
      out.x += v.x, out.y += v.y, out.z += v.z, out.w += v.w;
      sum += group_sum[i];
    }
    if (SINKS) sum += exp2_approximate(sinks[head] * LOG2E - most);
    const float factor = sum > 0.f ? 1.f / sum : 0.f;
    const u64 pairs =
        u64(to_bf16x2(out.x * factor, out.y * factor)) | u64(to_bf16x2(out.z * factor, out.w * factor)) << 32;
    *reinterpret_cast<u64*>(y + row->q_row * y_stride + i64(head) * DIM_V + thread * 4) = pairs;
    if (lse && thread == 0) lse[i64(row->q_row) * HEADS + head] = (most + log2_approximate(sum)) * LN2;
  }
}
