// Activations by the numbers of program::Activation.
#pragma once

#include "device.cuh"

enum : int { kIdentity, kRelu, kSilu, kGelu, kGeluTanh, kQuickGelu, kSigmoid };

DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 / (1 + exp(-x)), within a few units of the last place; 0 and 1 at the ends
DEVICE float sigmoid(float x) { return reciprocal_approx(1.f + exp2_approx(x * -1.44269504f)); }

// Within 2e-7 absolutely; what a cap on scores needs.
DEVICE float tanh_by_sigmoid(float x) { return fmaf(2.f, sigmoid(2.f * x), -1.f); }

template <int activation>
DEVICE float activate(float x) {
  if constexpr (activation == kRelu) return fmaxf(x, 0.f);
  if constexpr (activation == kSilu) return x * sigmoid(x);
  if constexpr (activation == kGelu) return 0.5f * x * (1.f + erff(x * 0.70710678f));
  // tanh(u) = 2 sigmoid(2 u) - 1, u = sqrt(2 / pi) (x + 0.044715 x^3)
  if constexpr (activation == kGeluTanh) return x * sigmoid(1.59576912f * x * fmaf(0.044715f * x, x, 1.f));
  if constexpr (activation == kQuickGelu) return x * sigmoid(1.702f * x);
  if constexpr (activation == kSigmoid) return sigmoid(x);
  return x;
}
