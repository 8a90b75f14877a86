// What products of the rows that extend answers share: their arguments (few_arguments.h), copies into shared
// memory, what becomes of a sum. Macros: FORM_*, GATED, EXPERTS if pieces of the weights are chosen.
#pragma once

#include "weight_forms.cuh"

#ifndef EXPERTS
#define EXPERTS 0
#endif

struct Segment {  // one of the matrices that share x
  const u8 *w, *up;
  const float* bias;
  void* y;
  i64 y_stride;
  i64 piece_bytes;
  int rows, first_group;  // its first group of 8 rows among all segments' (gated: groups of w and up in turn)
};
constexpr int kMostSegments = 4;
struct Arguments {
  Segment segments[kMostSegments];
  const bf16* x;
  const float* add;   // like y of segment 0, or null
  const i32* chosen;  // [m]: the piece of each row of y
  i64 cols;
  int m, groups, chunks, segment_count;
  int y_f32, activation;
  float scale, softcap;
  int x_share;  // rows of y that share a row of x
  int order;    // bits: kNextBeside, kBesidePrevious
};

// Products of the same x need not wait for each other: the kernel after one with kNextBeside begins when what
// it waits for has ended, and has kBesidePrevious: it waits for the one before it at its end, so that whoever
// waits for it has waited for both. It must read what earlier kernels wrote past the first-level cache.
constexpr int kNextBeside = 1, kBesidePrevious = 2;
DEVICE void begin_after_previous(const Arguments& p) {
  if (!(p.order & kNextBeside)) release_next();
  if (!(p.order & kBesidePrevious)) wait_for_previous();
  if (p.order & kNextBeside) release_next();
}
DEVICE void end_after_previous(const Arguments& p) {
  if (p.order & kBesidePrevious) wait_for_previous();
}
DEVICE uint2 load_far(const uint2* p) {
  uint2 v;
  asm volatile("ld.global.cg.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
DEVICE uint4 load_far(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

#ifndef CAIRN_SHARED_ADDRESS  // hopper.cuh has it
DEVICE u32 shared_address(const void* p) {
  u32 a;
  asm("{.reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t;}" : "=r"(a) : "l"(p));
  return a;
}
#endif
// bytes: 16, or 0 to fill with zeros
DEVICE void copy16(u32 to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
DEVICE void copy16(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE void copy8(u32 to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
DEVICE void wait_until_pending() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Numbers of program::Activation.
DEVICE float activated(int kind, float x) {
  switch (kind) {
    case 1: return fmaxf(x, 0.f);
    case 2: return x / (1.f + __expf(-x));
    case 3: return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    case 4: return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case 5: return x / (1.f + __expf(-1.702f * x));
    case 6: return 1.f / (1.f + __expf(-x));
    default: return x;
  }
}

DEVICE int segment_of(const Arguments& p, int group) {
  int s = 0;
#pragma unroll
  for (int i = 1; i < kMostSegments; ++i) s += i < p.segment_count && group >= p.segments[i].first_group;
  return s;
}

// Where a group of 8 rows lies.
DEVICE const u8* place_of(const Arguments& p, int group, int piece, int group_bytes) {
  const Segment& s = p.segments[segment_of(p, group)];
  int local = group - s.first_group;
  const u8* base = s.w;
  if (GATED) base = (local & 1) ? s.up : s.w, local >>= 1;
  if (EXPERTS) base += piece * s.piece_bytes;
  return base + local * (form::kBlocks ? i64(p.chunks) * group_bytes : 16 * p.cols);
}

// y of a row of the weights (of a group of 8; gated: of the gate's) from its sum, and from up's if gated.
DEVICE void write_output(const Arguments& p, int group, int row, int y_row, float v, float up) {
  const int index = segment_of(p, group);
  const Segment& s = p.segments[index];
  const int out_row = ((group - s.first_group) >> (GATED ? 1 : 0)) * 8 + row;
  if (out_row >= s.rows) return;
  if constexpr (GATED) {
    v = activated(p.activation, v) * up;
  } else {
    v *= p.scale;
    if (s.bias) v += s.bias[out_row];
    if (p.softcap != 0.f) v = p.softcap * tanhf(v / p.softcap);
    if (p.activation != 0) v = activated(p.activation, v);
  }
  const i64 at = i64(y_row) * s.y_stride + out_row;
  if (p.add && index == 0) v += p.add[at];
  if (p.y_f32) {
    static_cast<float*>(s.y)[at] = v;
  } else {
    static_cast<bf16*>(s.y)[at] = to_bf16(v);
  }
}
