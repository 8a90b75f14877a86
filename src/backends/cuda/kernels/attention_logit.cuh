// What happens to a score before the softmax, and which tokens a row sees: the variants of attention, chosen
// by macros.
//   SOFTCAP 1: cap * tanh(x / cap) (Gemma 2). ALIBI 1: a slope per head times the distance (Press et al.
//   2021). SINKS 1: a logit per head that takes weight and gives no value (GPT-OSS).
// Logits are in base 2: times log2 e.
#pragma once

#include "attention_forms.cuh"

#ifndef SOFTCAP
#define SOFTCAP 0
#endif
#ifndef ALIBI
#define ALIBI 0
#endif
#ifndef SINKS
#define SINKS 0
#endif

#define INFINITE __uint_as_float(0x7f800000u)
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

// 2^x; 0 for -infinity. Relative error below 2^-22.
DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float log2_approximate(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// low in bits 0..15
DEVICE u32 to_f16x2(float low, float high) {
  u32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

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

// Whether a mask that begins behind token open_end says that the row does not see token `at`.
DEVICE bool masked(const u32* masks, int mask_at, int open_end, int at) {
  const int bit = at - open_end - 1;
  return bit >= 0 && !(masks[mask_at + bit / 32] >> (bit % 32) & 1);
}

// Where a logit is a multiple of the score (scale > 0), the largest one is sought among the scores, and a
// probability is one multiply-add and one exp2.
constexpr bool kPlainLogit = !SOFTCAP && !ALIBI;
// What the maximum is taken of.
DEVICE float comparable(const LogitRule& rule, float score, float slope, int distance) {
  return kPlainLogit ? score : logit(rule, score, slope, distance);
}
// The largest logit from the largest comparable one.
DEVICE float largest_logit(const LogitRule& rule, float most) {
  return kPlainLogit ? most * rule.scale : most;
}
// base: the logit of which the probability is 1.
DEVICE float probability(const LogitRule& rule, float x, float base) {
  return exp2_approximate(kPlainLogit ? fmaf(x, rule.scale, -base) : x - base);
}

DEVICE u32 pack_pair(float low, float high) {
  return PRODUCTS_F16 ? to_f16x2(low, high) : to_bf16x2(low, high);
}
// Two bf16 elements of q as operands.
DEVICE u32 query_pair(u32 q) { return PRODUCTS_F16 ? to_f16x2(low_bf16(q), high_bf16(q)) : q; }
DEVICE u32 load_pair(const bf16* p) { return *reinterpret_cast<const u32*>(p); }
