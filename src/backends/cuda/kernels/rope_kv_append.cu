// Rotates this step's queries and keys (Su et al. 2021) and writes its keys and values into the paged cache:
//   q' = R(row) q, K[slot] = R(row) k, V[slot] = v.
// One thread per VEC rotated pairs or VEC plain elements of a head of a row. The angles' cosines and sines
// come from a table [row][ROTARY / 2] of pairs of f32, amplitudes included; products and sums are f32,
// rounded once. Bound: memory, 4 bytes per element.
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

static_assert(!CACHE_SCALES || (kRotated % 4 == 0 && (DIM_K - ROTARY) / VEC % 4 == 0 && kUnitsV % 4 == 0),
              "a block of q8_0 is rotated by four threads side by side");

struct alignas(VEC * 2) Elements {
  u16 at[VEC];
};
// VEC elements of a head's token into the cache, from element i on. q8_0: the four threads (of a warp, side
// by side) that hold the 32 elements of a block share its scale.
template <int dim>
DEVICE void store_elements(u8* cache, int slot, int kv_head, int i, const float (&x)[VEC]) {
  u8* page = cache + (i64(slot / PAGE) * KV_HEADS + kv_head) * head_page_bytes<dim, PAGE>();
  const int token = slot % PAGE;
  if constexpr (CACHE_BYTES) {
    u8 codes[VEC];
    if constexpr (CACHE_SCALES) {
      static_assert(VEC == 8 && dim % 32 == 0, "a block of q8_0 is four pieces of eight");
      float most = 0;
#pragma unroll
      for (int e = 0; e < VEC; ++e) most = fmaxf(most, fabsf(x[e]));
      const u32 block = 0xfu << (threadIdx.x % 32 & ~3u);
      most = fmaxf(most, __shfl_xor_sync(block, most, 1));
      most = fmaxf(most, __shfl_xor_sync(block, most, 2));
      const float scale = most / 127.f, inverse = scale > 0.f ? 1.f / scale : 0.f;
#pragma unroll
      for (int e = 0; e < VEC; ++e) codes[e] = u8(i8(__float2int_rn(x[e] * inverse)));
      if (threadIdx.x % 4 == 0)
        reinterpret_cast<u16*>(page + PAGE * dim)[token * (dim / 32) + i / 32] = to_f16(scale);
    } else {
#pragma unroll
      for (int e = 0; e < VEC; ++e) codes[e] = to_e4m3(x[e]);
    }
#pragma unroll
    for (int e = 0; e < VEC; ++e) page[token * dim + i + e] = codes[e];
  } else {
    Elements y;
#pragma unroll
    for (int e = 0; e < VEC; ++e) y.at[e] = PRODUCTS_F16 ? to_f16(x[e]) : to_bf16(x[e]);
    *reinterpret_cast<Elements*>(page + (token * dim + i) * 2) = y;
  }
}
DEVICE void load_elements(float (&x)[VEC], const bf16* from) {
  const Elements y = *reinterpret_cast<const Elements*>(from);
#pragma unroll
  for (int e = 0; e < VEC; ++e) x[e] = from_bf16(y.at[e]);
}

extern "C" __global__ void __launch_bounds__(256)
    rope_kv_append(const bf16* q, i64 q_stride, const bf16* k, i64 k_stride, const bf16* v, i64 v_stride,
                   bf16* q_out, i64 q_out_stride, u8* cache_k, u8* cache_v, const float2* rope,
                   const u8* plan, const PlanHead* head) {
  release_next();
  const int row = blockIdx.x, unit = blockIdx.y * blockDim.x + threadIdx.x;
  const int slot = reinterpret_cast<const i32*>(plan + head->row_slots_at)[row];
  wait_for_previous();
  constexpr int kQ = HEADS * kUnits, kK = KV_HEADS * kUnits, kV = KV_HEADS * kUnitsV;
  float x[VEC], z[VEC];
  if (unit >= kQ + kK) {
    const int at = unit - kQ - kK, kv_head = at / kUnitsV, i = at % kUnitsV * VEC;
    if (at >= kV || slot < 0) return;
    load_elements(x, v + row * v_stride + kv_head * DIM_V + i);
    store_elements<DIM_V>(cache_v, slot, kv_head, i, x);
    return;
  }
  const bool is_q = unit < kQ;
  if (!is_q && slot < 0) return;
  const int at = is_q ? unit : unit - kQ, h = at / kUnits, u = at % kUnits;
  const bf16* from = (is_q ? q + row * q_stride : k + row * k_stride) + h * DIM_K;
  const auto store = [&](int i, const float(&values)[VEC]) {
    if (is_q) {
      Elements y;
#pragma unroll
      for (int e = 0; e < VEC; ++e) y.at[e] = to_bf16(values[e]);
      *reinterpret_cast<Elements*>(q_out + row * q_out_stride + h * DIM_K + i) = y;
    } else {
      store_elements<DIM_K>(cache_k, slot, h, i, values);
    }
  };
  if (u >= kRotated) {
    const int i = ROTARY + (u - kRotated) * VEC;
    load_elements(x, from + i);
    store(i, x);
    return;
  }
  const float2* angles = rope + i64(row) * (ROTARY / 2);
  const int i = u * VEC;
  load_elements(x, from + i);
  if (ADJACENT) {
#pragma unroll
    for (int e = 0; e + 1 < VEC; e += 2) {
      const float2 r = angles[(i + e) / 2];
      const float a = x[e], b = x[e + 1];
      x[e] = a * r.x - b * r.y, x[e + 1] = b * r.x + a * r.y;
    }
    store(i, x);
  } else {
    load_elements(z, from + ROTARY / 2 + i);
#pragma unroll
    for (int e = 0; e < VEC; ++e) {
      const float2 r = angles[i + e];
      const float a = x[e], b = z[e];
      x[e] = a * r.x - b * r.y, z[e] = b * r.x + a * r.y;
    }
    store(i, x);
    store(ROTARY / 2 + i, z);
  }
}
