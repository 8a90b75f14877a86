// Sixteen lanes in plain C++, for any machine. The meaning of each operation is given here; the other lanes
// headers give the same integers (and the same floats, but for the roundings of fused multiply-add).
#pragma once

#include <cmath>
#include <cstring>

#include "backends/cpu/matmul_macros.h"

namespace cairn::cpu {
namespace {

struct ScalarLanes {
  static constexpr Isa kIsa = Isa::scalar;
  static constexpr int kRows = 1, kPanels = 1;            // tile of the integer kernels
  static constexpr int kFloatRows = 1, kFloatPanels = 1;  // and of the float kernels
  static constexpr int kRowPanels = 1;                    // panels side by side for one row of floats
  static constexpr int kSignedOffset = 0;                 // dp_signed adds this times the sum of s

  struct I {
    uint32_t v[16];
  };  // 16 integers, or 16 groups of 4 bytes
  struct F {
    float v[16];
  };

  static I zero() { return {}; }
  static I load(const void* p) {
    I r;
    std::memcpy(&r, p, 64);
    return r;
  }
  static void store(void* p, I a) { std::memcpy(p, &a, 64); }
  static I bcast(int32_t x) {
    I r;
    for (uint32_t& v : r.v) v = uint32_t(x);
    return r;
  }
  static I bcast_load(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return bcast(x);
  }
  template <typename Op>
  static I map(I a, I b, Op op) {
    for (int i = 0; i < 16; i++) a.v[i] = op(a.v[i], b.v[i]);
    return a;
  }
  // Bits n.. of each byte under a mask that keeps none of the neighbour's bits.
  template <int n, int mask>
  static I shr_and(I a) {
    return map(a, a, [](uint32_t x, uint32_t) { return (x >> n) & (mask * 0x01010101u); });
  }
  template <int n, int mask>
  static I shl_and(I a) {
    return map(a, a, [](uint32_t x, uint32_t) { return (x << n) & (mask * 0x01010101u); });
  }
  static I bit_or(I a, I b) {
    return map(a, b, [](uint32_t x, uint32_t y) { return x | y; });
  }
  static I add(I a, I b) {
    return map(a, b, [](uint32_t x, uint32_t y) { return x + y; });
  }
  static I sub(I a, I b) {
    return map(a, b, [](uint32_t x, uint32_t y) { return x - y; });
  }
  static I mul(I a, I b) {
    return map(a, b, [](uint32_t x, uint32_t y) { return x * y; });
  }
  template <int n>
  static I shl32(I a) {
    return map(a, a, [](uint32_t x, uint32_t) { return x << n; });
  }
  static I low16(I a) {
    return map(a, a, [](uint32_t x, uint32_t) { return x & 0xffffu; });
  }
  static I high16(I a) {
    return map(a, a, [](uint32_t x, uint32_t) { return x & 0xffff0000u; });
  }
  static I pair(I low, I high) {
    return bit_or(low16(low), shl32<16>(high));
  }  // int16 pairs from 16 + 16 int32
  static I widen_u8(const void* p) {
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = static_cast<const uint8_t*>(p)[i];
    return r;
  }
  static I widen_s8(const void* p) {
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = uint32_t(int32_t{static_cast<const int8_t*>(p)[i]});
    return r;
  }
  static I widen_u16(const void* p) {
    I r;
    for (int i = 0; i < 16; i++) {
      uint16_t h;
      std::memcpy(&h, static_cast<const char*>(p) + 2 * i, 2);
      r.v[i] = h;
    }
    return r;
  }
  // Bits n and n+1 of each 32-bit lane to bits 4 and 5.
  template <int n>
  static I high2(I a) {
    return map(a, a, [](uint32_t x, uint32_t) { return ((x >> n) & 3) << 4; });
  }
  // Bits n..n+3 of each 32-bit lane to bit 4 of its four bytes.
  template <int n>
  static I spread4(I a) {
    return map(a, a,
               [](uint32_t x, uint32_t) { return ((((x >> n) & 15) * 0x00204081u) & 0x01010101u) << 4; });
  }
  // 2^(e - 128) for e in 0..255
  static F power_of_two(I e) {
    return bits_float(map(e, e, [](uint32_t x, uint32_t) { return x < 2 ? 0x200000u << x : (x - 1) << 23; }));
  }
  // Each byte, 0..15, replaced by table[byte].
  static I lookup(I a, const int8_t* table) {
    for (uint32_t& v : a.v) {
      uint32_t r = 0;
      for (int b = 0; b < 4; b++) r |= uint32_t(uint8_t(table[(v >> (8 * b)) & 15])) << (8 * b);
      v = r;
    }
    return a;
  }
  // acc + the four products of unsigned bytes u (at most 127) and signed bytes s
  static I dp(I acc, I u, I s) {
    for (int i = 0; i < 16; i++)
      for (int b = 0; b < 4; b++)
        acc.v[i] += uint32_t(int32_t((u.v[i] >> (8 * b)) & 0xff) * int8_t(uint8_t(s.v[i] >> (8 * b))));
    return acc;
  }
  // Signed bytes in the form that dp_signed wants.
  static I signed_form(I w) { return w; }
  static I dp_signed(I acc, I w, I s) {
    for (int i = 0; i < 16; i++)
      for (int b = 0; b < 4; b++)
        acc.v[i] +=
            uint32_t(int32_t{int8_t(uint8_t(w.v[i] >> (8 * b)))} * int8_t(uint8_t(s.v[i] >> (8 * b))));
    return acc;
  }
  // acc + the two products of int16
  static I dp16(I acc, I a, I b) {
    for (int i = 0; i < 16; i++)
      acc.v[i] += uint32_t(int32_t{int16_t(a.v[i] & 0xffff)} * int16_t(b.v[i] & 0xffff) +
                           int32_t{int16_t(a.v[i] >> 16)} * int16_t(b.v[i] >> 16));
    return acc;
  }
  static F to_float(I a) {
    F r;
    for (int i = 0; i < 16; i++) r.v[i] = float(int32_t(a.v[i]));
    return r;
  }
  static F bits_float(I a) {
    F r;
    std::memcpy(&r, &a, 64);
    return r;
  }
  static F zero_f() { return {}; }
  static F load_f(const float* p) {
    F r;
    std::memcpy(&r, p, 64);
    return r;
  }
  static void store_f(float* p, F a) { std::memcpy(p, &a, 64); }
  static F load_f(const float* p, int64_t n) {
    F r = {};
    std::memcpy(&r, p, size_t(n) * 4);
    return r;
  }
  static void store_f(float* p, F a, int64_t n) { std::memcpy(p, &a, size_t(n) * 4); }
  static F bcast_f(float x) {
    F r;
    for (float& v : r.v) v = x;
    return r;
  }
  static F mul_f(F a, F b) {
    for (int i = 0; i < 16; i++) a.v[i] *= b.v[i];
    return a;
  }
  static F fma(F a, F b, F c) {
    for (int i = 0; i < 16; i++) c.v[i] = a.v[i] * b.v[i] + c.v[i];
    return c;
  }
  static F fnma(F a, F b, F c) {
    for (int i = 0; i < 16; i++) c.v[i] = c.v[i] - a.v[i] * b.v[i];
    return c;
  }
  static F load_f16(const void* p) {
    F r;
    for (int i = 0; i < 16; i++) {
      uint16_t h;
      std::memcpy(&h, static_cast<const char*>(p) + 2 * i, 2);
      const uint32_t magnitude = uint32_t(h & 0x7fff)
                                 << 13;  // the half's bits as a float 2^112 times too small
      float f;
      std::memcpy(&f, &magnitude, 4);
      f *= 0x1p112f;
      if ((h & 0x7c00) == 0x7c00) f = (h & 0x3ff) ? NAN : INFINITY;
      r.v[i] = (h & 0x8000) ? -f : f;
    }
    return r;
  }

  // For prepare: the bits of the largest magnitude among n elements (NaN counts above infinity).
  static uint32_t max_magnitude_bits(const float* x, int64_t n) {
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
      uint32_t u;
      std::memcpy(&u, x + i, 4);
      u &= 0x7fffffffu;
      most = u > most ? u : most;
    }
    return most;
  }
  // 16 elements times inverse, to the nearest int8; returns their sum.
  static int quantize16(const float* x, float inverse, int8_t* q) {
    int sum = 0;
    for (int i = 0; i < 16; i++) {
      const float scaled = x[i] * inverse;
      const int v = scaled >= -127.5f && scaled <= 127.5f ? int(std::nearbyint(scaled)) : -128;
      q[i] = int8_t(v);
      sum += q[i];
    }
    return sum;
  }
};

}  // namespace
}  // namespace cairn::cpu
