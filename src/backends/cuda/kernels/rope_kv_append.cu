// Rotates this step's queries and keys (Su et al. 2021) and writes its keys and values into the paged cache:
//   q' = R(row) q, K[slot] = R(row) k, V[slot] = v.
// One thread per VEC rotated pairs or VEC plain elements of a head of a row. The angles' cosines and sines come from a
// table [row][ROTARY / 2] of pairs of f32, amplitudes included; products and sums are f32, rounded once.
// Bound: memory, 4 bytes per element.
#include "attention_logit.cuh"
#include "attention_records.cuh"

using namespace cairn::cuda;

#ifndef DIM_K
#define DIM_K 128
#define DIM_V 128
#define HEADS 32
#define KV_HEADS 8
#define PAGE 32
#endif
#ifndef ROTARY
#define ROTARY DIM_K  // elements of a head that are rotated; 0: none
#endif
#ifndef ADJACENT
#define ADJACENT 0  // pairs (2 i, 2 i + 1) instead of (i, i + ROTARY / 2)
#endif
#ifndef VEC
#define VEC 8  // divides ROTARY / 2 (ROTARY, if adjacent), DIM_K - ROTARY and DIM_V; a power of two up to 8
#endif

constexpr int kRotated = ADJACENT ? ROTARY / VEC : ROTARY / 2 / VEC;
constexpr int kUnits = kRotated + (DIM_K - ROTARY) / VEC;  // of a head of q or k
constexpr int kUnitsV = DIM_V / VEC;
static_assert(ROTARY % 2 == 0 && (ADJACENT ? ROTARY : ROTARY / 2) % VEC == 0 && (DIM_K - ROTARY) % VEC == 0 &&
                  DIM_V % VEC == 0 && (VEC > 1 || !ADJACENT),
              "VEC does not fit");

struct alignas(VEC * 2) Elements {
  u16 at[VEC];
};
DEVICE u16 stored(float x) { return CACHE_F16 ? to_f16(x) : to_bf16(x); }
DEVICE u16 stored_same(bf16 x) { return CACHE_F16 ? to_f16(from_bf16(x)) : x; }

extern "C" __global__ void __launch_bounds__(256)
    rope_kv_append(const bf16* q, i64 q_stride, const bf16* k, i64 k_stride, const bf16* v, i64 v_stride, bf16* q_out,
                   i64 q_out_stride, u16* cache_k, u16* cache_v, const float2* rope, const u8* plan,
                   const PlanHead* head) {
  release_next();
  const int row = blockIdx.x, unit = blockIdx.y * blockDim.x + threadIdx.x;
  const int slot = reinterpret_cast<const i32*>(plan + head->row_slots_at)[row];
  wait_for_previous();
  constexpr int kQ = HEADS * kUnits, kK = KV_HEADS * kUnits, kV = KV_HEADS * kUnitsV;
  if (unit >= kQ + kK) {
    const int at = unit - kQ - kK, kv_head = at / kUnitsV, i = at % kUnitsV * VEC;
    if (at >= kV || slot < 0) return;
    Elements x = *reinterpret_cast<const Elements*>(v + row * v_stride + kv_head * DIM_V + i);
#pragma unroll
    for (int e = 0; e < VEC; ++e) x.at[e] = stored_same(x.at[e]);
    const i64 to = (i64(slot / PAGE) * KV_HEADS + kv_head) * PAGE + slot % PAGE;
    *reinterpret_cast<Elements*>(cache_v + to * DIM_V + i) = x;
    return;
  }
  const bool is_q = unit < kQ;
  if (!is_q && slot < 0) return;
  const int at = is_q ? unit : unit - kQ, h = at / kUnits, u = at % kUnits;
  const bf16* from = (is_q ? q + row * q_stride : k + row * k_stride) + h * DIM_K;
  u16* to = is_q ? q_out + row * q_out_stride + h * DIM_K
                 : cache_k + ((i64(slot / PAGE) * KV_HEADS + h) * PAGE + slot % PAGE) * DIM_K;
  if (u >= kRotated) {
    const int i = ROTARY + (u - kRotated) * VEC;
    Elements x = *reinterpret_cast<const Elements*>(from + i);
    if (!is_q) {
#pragma unroll
      for (int e = 0; e < VEC; ++e) x.at[e] = stored_same(x.at[e]);
    }
    *reinterpret_cast<Elements*>(to + i) = x;
    return;
  }
  const float2* angles = rope + i64(row) * (ROTARY / 2);
  if (ADJACENT) {
    const int i = u * VEC;
    Elements x = *reinterpret_cast<const Elements*>(from + i);
#pragma unroll
    for (int e = 0; e + 1 < VEC; e += 2) {
      const float2 r = angles[(i + e) / 2];
      const float a = from_bf16(x.at[e]), b = from_bf16(x.at[e + 1]);
      const float c = a * r.x - b * r.y, d = b * r.x + a * r.y;
      x.at[e] = is_q ? to_bf16(c) : stored(c), x.at[e + 1] = is_q ? to_bf16(d) : stored(d);
    }
    *reinterpret_cast<Elements*>(to + i) = x;
  } else {
    const int i = u * VEC;
    Elements x = *reinterpret_cast<const Elements*>(from + i), z = *reinterpret_cast<const Elements*>(from + ROTARY / 2 + i);
#pragma unroll
    for (int e = 0; e < VEC; ++e) {
      const float2 r = angles[i + e];
      const float a = from_bf16(x.at[e]), b = from_bf16(z.at[e]);
      const float c = a * r.x - b * r.y, d = b * r.x + a * r.y;
      x.at[e] = is_q ? to_bf16(c) : stored(c), z.at[e] = is_q ? to_bf16(d) : stored(d);
    }
    *reinterpret_cast<Elements*>(to + i) = x;
    *reinterpret_cast<Elements*>(to + ROTARY / 2 + i) = z;
  }
}
