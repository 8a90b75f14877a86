// Rows of a table that is held in blocks (weights.h), as f32: y[t] = scale * table[ids[t] + offset], ids
// null: all 0. A block of threads per row; four lanes decode 128 columns, as the lanes of that row do in a
// product. Bound: latency.
#include "weight_forms.cuh"

template <int j>
DEVICE void embed_step(const form::Codes& codes, const form::SectionScales& scales, float factor, float* to,
                       int left) {
  float scale[2] = {}, min[2] = {};
  u32 offset = 0;
  form::step_scales<j>(scales, scale, min, offset);
  u32 pairs[4];
  form::decode_step<j>(codes, offset, pairs);
  const int t = int(threadIdx.x) & 3;
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // 4 columns each
    const float s = form::kHalfSteps ? scale[half] : scale[0], m = form::kHalfSteps ? min[half] : min[0];
    float w[4] = {low_bf16(pairs[2 * half]), high_bf16(pairs[2 * half]), low_bf16(pairs[2 * half + 1]),
                  high_bf16(pairs[2 * half + 1])};
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = (form::kMin ? fmaf(s, w[i], m) : s * w[i]) * factor;
    const int column = form::kHalfSteps ? 32 * j + 16 * half + 4 * t : 32 * j + 8 * t + 4 * half;
    if (column < left) *reinterpret_cast<float4*>(to + column) = make_float4(w[0], w[1], w[2], w[3]);
  }
}

extern "C" __global__ void __launch_bounds__(128)
    embed_packed(const i32* ids, const u8* table, float* y, i64 cols, float factor, i64 offset) {
  release_next();
  wait_for_previous();
  constexpr u32 kSections = form::kChunk / 128;
  const i64 row = (ids ? ids[blockIdx.x] : 0) + offset, chunks = (cols + form::kChunk - 1) / form::kChunk;
  const int in_group = int(row & 7), lane = in_group * 4 + (int(threadIdx.x) & 3);
  const u32 across = u32((cols + 127) / 128);
  for (u32 at = threadIdx.x / 4; at < across; at += 32) {
    const u8* block = table + ((row >> 3) * chunks + at / kSections) * form::kBlockBytes;
    const auto codes = form::load_codes(block, int(at % kSections), lane);
    const auto scales = form::load_scales(block, int(at % kSections), in_group);
    float* to = y + i64(blockIdx.x) * cols + i64(at) * 128;
    const int left = int(min(cols - i64(at) * 128, i64(128)));
    embed_step<0>(codes, scales, factor, to, left);
    embed_step<1>(codes, scales, factor, to, left);
    embed_step<2>(codes, scales, factor, to, left);
    embed_step<3>(codes, scales, factor, to, left);
  }
}
