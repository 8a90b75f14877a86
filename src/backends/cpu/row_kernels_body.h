// The bodies of row_kernels.h. Included once by each row_kernels_<isa>.cpp, which is compiled for its
// instruction set; plain loops over kLanes independent sums that the compiler turns into vectors. No include
// guard on purpose. Everything lives in an anonymous namespace, so no copy built for a higher level can be
// linked into a lower one.
#include <cmath>
#include <cstring>

#include "backends/cpu/row_kernels.h"

namespace cairn::cpu {
namespace {

constexpr int64_t kLanes = 16;

inline float fused(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

inline float bits_to_float(int32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// e^x to 2 ulp (Cody & Waite reduction, degree-6 polynomial on [-ln2/2, ln2/2]); 0 and infinity at the ends.
inline float exp_fast(float x) {
  const float clamped = x < -87.f ? -87.f : x > 88.f ? 88.f : x;
  const float shifted =
      fused(clamped, 1.44269504f, 12582912.f);  // rounds to an integer in the low mantissa bits
  const float n = shifted - 12582912.f;
  float r = fused(n, -0.693359375f, clamped);
  r = fused(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fused(p, r, 1.3981999507e-3f);
  p = fused(p, r, 8.3334519073e-3f);
  p = fused(p, r, 4.1665795894e-2f);
  p = fused(p, r, 1.6666665459e-1f);
  p = fused(p, r, 5.0000001201e-1f);
  p = fused(p, r * r, r + 1.f);
  int32_t exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  const float result = p * bits_to_float((exponent << 23) + 0x3f800000);
  return x < -87.f ? 0.f : x > 88.f ? __builtin_inff() : result;
}

inline float sigmoid(float x) { return 1.f / (1.f + exp_fast(-x)); }

// tanh by its own small-argument series where e^2x - 1 would cancel.
inline float tanh_fast(float x) {
  const float a = __builtin_fabsf(x);
  const float e = exp_fast(-2.f * a);
  const float big = (1.f - e) / (1.f + e);
  const float s = a * a;
  const float small =
      a *
      fused(s, fused(s, fused(s, fused(s, 0.0218694885f, -0.0539682540f), 0.133333333f), -0.333333333f), 1.f);
  const float magnitude = a < 0.25f ? small : big;
  return __builtin_copysignf(magnitude, x);
}

// erf by Abramowitz & Stegun 7.1.26 would give 1.5e-7 absolute; near 0 that is not relative enough, so below
// 0.5 the Maclaurin series is used instead.
inline float erf_fast(float x) {
  const float a = __builtin_fabsf(x);
  const float t = 1.f / fused(0.3275911f, a, 1.f);
  float p = 1.061405429f;
  p = fused(p, t, -1.453152027f);
  p = fused(p, t, 1.421413741f);
  p = fused(p, t, -0.284496736f);
  p = fused(p, t, 0.254829592f);
  const float big = 1.f - p * t * exp_fast(-a * a);
  const float s = a * a;
  const float small =
      a * fused(s, fused(s, fused(s, fused(s, 0.00522397762f, -0.0268661706f), 0.112837917f), -0.376126389f),
                1.12837917f);
  return __builtin_copysignf(a < 0.5f ? small : big, x);
}

template <program::Activation kActivation>
inline float apply(float x) {
  using program::Activation;
  if constexpr (kActivation == Activation::relu) return x > 0 ? x : 0;
  if constexpr (kActivation == Activation::silu) return x * sigmoid(x);
  if constexpr (kActivation == Activation::gelu) return 0.5f * x * (1.f + erf_fast(x * 0.70710678f));
  if constexpr (kActivation == Activation::gelu_tanh)
    return 0.5f * x * (1.f + tanh_fast(0.79788456f * fused(0.044715f * x * x, x, x)));
  if constexpr (kActivation == Activation::quick_gelu) return x * sigmoid(1.702f * x);
  if constexpr (kActivation == Activation::sigmoid) return sigmoid(x);
  return x;
}

// Calls f with the activation as a compile-time constant, so that each gets its own vector loop.
template <typename F>
inline void with_activation(program::Activation activation, F&& f) {
  using program::Activation;
  switch (activation) {
    case Activation::identity: return f(std::integral_constant<Activation, Activation::identity>());
    case Activation::relu: return f(std::integral_constant<Activation, Activation::relu>());
    case Activation::silu: return f(std::integral_constant<Activation, Activation::silu>());
    case Activation::gelu: return f(std::integral_constant<Activation, Activation::gelu>());
    case Activation::gelu_tanh: return f(std::integral_constant<Activation, Activation::gelu_tanh>());
    case Activation::quick_gelu: return f(std::integral_constant<Activation, Activation::quick_gelu>());
    case Activation::sigmoid: return f(std::integral_constant<Activation, Activation::sigmoid>());
  }
}

// The sum of term(i) over n elements: kLanes running sums, then added pairwise. The order is part of the
// result.
template <typename Term>
inline float lane_sum(int64_t n, Term&& term) {
  float sums[kLanes] = {};
  const int64_t whole = n - n % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += term(i + lane);
  for (int64_t i = whole; i < n; ++i) sums[i - whole] += term(i);
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  return sums[0];
}

void rms_norm(const float* x, const float* weight, float eps, float offset, int64_t n, float* y) {
  const float squares = lane_sum(n, [&](int64_t i) { return x[i] * x[i]; });
  const float scale = 1.f / std::sqrt(squares / float(n) + eps);
  if (weight) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * (offset + weight[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale;
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
  const float mean = lane_sum(n, [&](int64_t i) { return x[i]; }) / float(n);
  const float squares = lane_sum(n, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); });
  const float scale = 1.f / std::sqrt(squares / float(n) + eps);
  for (int64_t i = 0; i < n; ++i) {
    float value = (x[i] - mean) * scale;
    if (weight) value *= weight[i];
    if (bias) value += bias[i];
    y[i] = value;
  }
}

void add(const float* a, const float* b, float b_scale, int64_t n, float* y) {
  if (b_scale == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i] * b_scale;
  }
}

void clamp(const float* x, float limit, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] < -limit ? -limit : x[i] > limit ? limit : x[i];
}

void scale(const float* x, float factor, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

void soft_cap(const float* x, float factor, float cap, int64_t n, float* y) {
  if (cap == 0) return scale(x, factor, n, y);
  const float inverse = 1.f / cap;
  for (int64_t i = 0; i < n; ++i) y[i] = cap * tanh_fast(x[i] * factor * inverse);
}

void activate(program::Activation activation, const float* x, int64_t n, float* y) {
  with_activation(activation, [&](auto constant) {
    for (int64_t i = 0; i < n; ++i) y[i] = apply<decltype(constant)::value>(x[i]);
  });
}

void gated(program::Activation activation, const float* gate, const float* up, int64_t n, float* y) {
  with_activation(activation, [&](auto constant) {
    for (int64_t i = 0; i < n; ++i) y[i] = apply<decltype(constant)::value>(gate[i]) * up[i];
  });
}

void rope(const float* x, const float* cosine, const float* sine, int64_t heads, int64_t head_dim,
          int64_t rotary_dim, program::RopePairing pairing, float* y) {
  const int64_t half = rotary_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
    if (pairing == program::RopePairing::half) {
      for (int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        y[i] = a * cosine[i] - b * sine[i];
        y[i + half] = b * cosine[i] + a * sine[i];
      }
    } else {
      for (int64_t i = 0; i < half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * cosine[i] - b * sine[i];
        y[2 * i + 1] = b * cosine[i] + a * sine[i];
      }
    }
    if (y != x)
      for (int64_t i = rotary_dim; i < head_dim; ++i) y[i] = x[i];
  }
}

void multiply_add(const float* x, float factor, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * factor;
}

constexpr RowKernels kKernels{rms_norm, layer_norm, add,   clamp, scale,
                              soft_cap, activate,   gated, rope,  multiply_add};

}  // namespace
}  // namespace cairn::cpu
