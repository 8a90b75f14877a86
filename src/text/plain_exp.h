// e^x for sampling: in plain f32 products and sums (no libm, no fma), so that every machine, and a GPU, gets
// the same bits.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

namespace cairn::text {

// Four at once: vectors wherever there are some.
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
inline constexpr size_t kLanes = 4;

// e^x for x <= 0, zero below -87, relative error under 2e-7: x = n ln 2 + r with |r| <= ln(2) / 2, a
// polynomial for e^r, and 2^n put into the exponent.
inline Floats exp_negative(Floats x) {
  const Ints in_range = x >= -87.0f;
  const Ints kept = std::bit_cast<Ints>(x) & in_range;  // zeros elsewhere, so that n stays small
  x = std::bit_cast<Floats>(kept);
  const Floats n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest: 1.5 * 2^23
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  return std::bit_cast<Floats>(std::bit_cast<Ints>(p * std::bit_cast<Floats>(power)) & in_range);
}

inline float exp_or_zero(float x) { return exp_negative(Floats{x})[0]; }

// Calls use(first index, four values) over e^((logit - largest) * scale); values past the end are zero.
template <typename Use>
inline void for_each_exp(std::span<const float> logits, float largest, float scale, Use&& use) {
  for (size_t i = 0; i < logits.size(); i += kLanes) {
    Floats x;
    if (i + kLanes <= logits.size()) {
      std::memcpy(&x, logits.data() + i, sizeof x);
    } else {
      for (size_t j = 0; j < kLanes; ++j)
        x[j] = i + j < logits.size() ? logits[i + j] : -std::numeric_limits<float>::infinity();
    }
    use(i, exp_negative((x - largest) * scale));
  }
}

}  // namespace cairn::text
