// The definition of a packed weight as bf16: w = scale q + min in f32, rounded once. What unpack.cu writes to
// memory and matmul_many_sm90.cu to its tiles.
#pragma once

#include "weight_forms.cuh"

namespace form {

#if FORM_LAYOUT == 2
// Step j of a lane's section as four pairs of bf16 (places: Form in weights.h).
template <int j>
DEVICE void unpacked_step(const Codes& codes, const SectionScales& scales, u32 (&out)[4]) {
  float scale[2] = {}, min[2] = {};
  u32 offset = 0;
  step_scales<j>(scales, scale, min, offset);
  u32 pairs[4];
  decode_step<j>(codes, offset, pairs);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float s = kHalfSteps && i >= 2 ? scale[1] : scale[0], m = kHalfSteps && i >= 2 ? min[1] : min[0];
    const float low = low_bf16(pairs[i]), high = high_bf16(pairs[i]);
    out[i] = kMin ? to_bf16x2(fmaf(s, low, m), fmaf(s, high, m)) : to_bf16x2(s * low, s * high);
  }
}
#endif

}  // namespace form
