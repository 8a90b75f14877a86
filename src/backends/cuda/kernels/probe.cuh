// What the probes of a device (probe_*.cu) share: clocks, and operands that cost what real ones do.
#pragma once

#include "device.cuh"

// Cycles of this multiprocessor. Nothing moves across it: volatile, and a clobber of memory.
DEVICE u64 cycles() {
  u64 c;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(c)::"memory");
  return c;
}

// Waits for a loaded address: nothing after it starts before the branch is decided.
DEVICE void arrived(u64 p) {
  asm volatile("{\n.reg .pred p;\nsetp.eq.u64 p, %0, 1;\n@p trap;\n}" ::"l"(p) : "memory");
}

DEVICE u32 mixed(u32 x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// Element types as the host numbers them (probe.cpp).
#define BF16 0
#define F16 1
#define TF32 2
#define E4M3 3
#define INT8 4

// 32 bits of elements of a type. Plain: all ones, so that sums can be checked. Random: values between 1 and 2
// of either sign, because constant operands take less power and run faster than real ones.
template <int type>
DEVICE u32 operand(u32 seed, bool random) {
  const u32 r = mixed(seed);
  if constexpr (type == BF16) return 0x3f803f80u | (random ? r & 0x807f807fu : 0);
  if constexpr (type == F16) return 0x3c003c00u | (random ? r & 0x83ff83ffu : 0);
  if constexpr (type == TF32) return 0x3f800000u | (random ? r & 0x807fe000u : 0);
  if constexpr (type == E4M3) return 0x38383838u | (random ? r & 0x87878787u : 0);
  return random ? r : 0x01010101u;
}
