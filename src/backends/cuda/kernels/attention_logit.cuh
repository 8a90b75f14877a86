// What happens to a score before the softmax, and which tokens a row sees: the variants of attention, chosen by macros.
//   SOFTCAP 1: cap * tanh(x / cap) (Gemma 2). ALIBI 1: a slope per head times the distance (Press et al. 2021).
//   SINKS 1: a logit per head that takes weight and gives no value (GPT-OSS).
// Logits are in base 2: times log2 e.
#pragma once

#include "warp_tensor.cuh"

#ifndef SOFTCAP
#define SOFTCAP 0
#endif
#ifndef ALIBI
#define ALIBI 0
#endif
#ifndef SINKS
#define SINKS 0
#endif
#ifndef CACHE_F16
#define CACHE_F16 0  // the cache holds f16 instead of bf16: q and the probabilities are rounded to f16 too
#endif

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

struct LogitRule {
  float scale;         // of q k, with log2 e
  float cap, per_cap;  // cap log2 e; scale / cap * 2 log2 e
};
DEVICE LogitRule logit_rule(float scale, float softcap) {
  return {scale * LOG2E, softcap * LOG2E, SOFTCAP ? scale / softcap * (2 * LOG2E) : 0.f};
}

// slope: with log2 e; distance: token - position.
DEVICE float logit(const LogitRule& rule, float score, float slope, int distance) {
  float x;
  if (SOFTCAP) {
    // tanh z = 1 - 2 / (e^2z + 1), right at both ends; off by about 2^-23 in the middle.
    const float e = exp2_approximate(score * rule.per_cap);
    x = rule.cap * (1.f - __fdividef(2.f, e + 1.f));
  } else {
    x = score * rule.scale;
  }
  if (ALIBI) x += slope * float(distance);
  return x;
}

DEVICE u32 pack_pair(float low, float high) { return CACHE_F16 ? to_f16x2(low, high) : to_bf16x2(low, high); }
DEVICE void mma_pair(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if (CACHE_F16)
    mma_f16(d, a, b0, b1);
  else
    mma_bf16(d, a, b0, b1);
}
// Two bf16 elements of q as operands.
DEVICE u32 query_pair(u32 q) { return CACHE_F16 ? to_f16x2(low_bf16(q), high_bf16(q)) : q; }
DEVICE u32 load_pair(const bf16* p) { return *reinterpret_cast<const u32*>(p); }
