// Weights of any form as bf16, row-major: what products of many rows multiply. One thread: 8 columns of a
// row. Bound: memory, 2 bytes written per weight and its form's bytes read.
#include "weight_forms.cuh"

#if FORM_LAYOUT == 2
template <int j>
DEVICE void unpack_step(const u8* block, int section, int lane, u32 (&y)[4]) {
  const int row = lane >> 2;
  const form::Codes codes = form::load_codes(block, section, lane);
  const form::SectionScales scales = form::load_scales(block, section, row);
  float scale[2] = {}, min[2] = {};
  u32 offset = 0;
  form::step_scales<j>(scales, scale, min, offset);
  u32 pairs[4];
  form::decode_step<j>(codes, offset, pairs);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float s = form::kHalfSteps && i >= 2 ? scale[1] : scale[0],
                m = form::kHalfSteps && i >= 2 ? min[1] : min[0];
    const float low = low_bf16(pairs[i]), high = high_bf16(pairs[i]);
    y[i] = form::kMin ? to_bf16x2(fmaf(s, low, m), fmaf(s, high, m)) : to_bf16x2(s * low, s * high);
  }
}
#endif

// w: a piece. y: rows [row0, row0 + gridDim.y). grid: (ceil(cols / 8 / 256), rows).
extern "C" __global__ void __launch_bounds__(256) unpack(const u8* w, i64 cols, i64 row0, bf16* y) {
  const i64 item = i64(blockIdx.x) * 256 + threadIdx.x, row = row0 + blockIdx.y;
  wait_for_previous();
  release_next();
  if (item * 8 >= cols) return;
  bf16* to = y + i64(blockIdx.y) * cols;
#if FORM_LAYOUT == 0
  *reinterpret_cast<uint4*>(to + item * 8) = *reinterpret_cast<const uint4*>(w + (row * cols + item * 8) * 2);
#elif FORM_LAYOUT == 1
  const uint4 v = *reinterpret_cast<const uint4*>(w + (row * cols + item * 8) * 2);
  const u32 halves[4] = {v.x, v.y, v.z, v.w};
  u32 out[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = to_bf16x2(from_f16(f16(halves[i])), from_f16(f16(halves[i] >> 16)));
  *reinterpret_cast<uint4*>(to + item * 8) = make_uint4(out[0], out[1], out[2], out[3]);
#else
  const int t = int(item & 3);
  const i64 step = item >> 2, chunks = (cols + form::kChunk - 1) / form::kChunk;
  const u8* block = w + ((row >> 3) * chunks + step / form::kSteps) * form::kBlockBytes;
  const int in_chunk = int(step % form::kSteps), section = in_chunk >> 2, lane = int(row & 7) * 4 + t;
  u32 out[4];
  switch (in_chunk & 3) {
    case 0: unpack_step<0>(block, section, lane, out); break;
    case 1: unpack_step<1>(block, section, lane, out); break;
    case 2: unpack_step<2>(block, section, lane, out); break;
    default: unpack_step<3>(block, section, lane, out);
  }
  if (form::kHalfSteps) {
    to += step * 32 + 4 * t;
    *reinterpret_cast<uint2*>(to) = make_uint2(out[0], out[1]);
    if (step * 32 + 16 < cols) *reinterpret_cast<uint2*>(to + 16) = make_uint2(out[2], out[3]);
  } else {
    *reinterpret_cast<uint4*>(to + item * 8) = make_uint4(out[0], out[1], out[2], out[3]);
  }
#endif
}
