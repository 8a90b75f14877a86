// Any processor: eight floats as plain loops that the compiler vectorizes as it can. Products round before
// they are added here (no FMA in the baseline).
#include <bit>
#include <cmath>

#include "backends/cpu/attention_f32_tiles.h"
#include "base/float16.h"

namespace cairn::cpu {
namespace {

struct Plain {
  static constexpr int N = 8, kBlock = 1;
  struct F {
    float x[N];
  };
  template <typename Op>
  static F each(Op&& op) {
    F y;
    for (int i = 0; i < N; ++i) y.x[i] = op(i);
    return y;
  }
  static F set(float v) {
    return each([&](int) { return v; });
  }
  static F iota(int from) {
    return each([&](int i) { return float(from + i); });
  }
  static F load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static F load_f16(const uint16_t* p) {
    return each([&](int i) { return f16_to_float(p[i]); });
  }
  static F load_bf16(const uint16_t* p) {
    return each([&](int i) { return bf16_to_float(p[i]); });
  }
  static F load_i8(const int8_t* p) {
    return each([&](int i) { return float(p[i]); });
  }
  static float f16(uint16_t h) { return f16_to_float(h); }
  static void store(float* p, const F& a) {
    for (int i = 0; i < N; ++i) p[i] = a.x[i];
  }
  static void store_f16(uint16_t* p, const F& a) {
    for (int i = 0; i < N; ++i) p[i] = float_to_f16(a.x[i]);
  }
  static void store_bf16(uint16_t* p, const F& a) {
    for (int i = 0; i < N; ++i) p[i] = float_to_bf16(a.x[i]);
  }
  static void store_i8(int8_t* p, const F& a) {  // towards zero; NaN is 0
    for (int i = 0; i < N; ++i) p[i] = a.x[i] == a.x[i] ? int8_t(a.x[i]) : int8_t{0};
  }
  static uint16_t to_f16(float v) { return float_to_f16(v); }
  static F add(const F& a, const F& b) {
    return each([&](int i) { return a.x[i] + b.x[i]; });
  }
  static F sub(const F& a, const F& b) {
    return each([&](int i) { return a.x[i] - b.x[i]; });
  }
  static F mul(const F& a, const F& b) {
    return each([&](int i) { return a.x[i] * b.x[i]; });
  }
  static F div(const F& a, const F& b) {
    return each([&](int i) { return a.x[i] / b.x[i]; });
  }
  static F fma(const F& a, const F& b, const F& c) {
    return each([&](int i) { return a.x[i] * b.x[i] + c.x[i]; });
  }
  static F max(const F& a, const F& b) {
    return each([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; });
  }
  static F abs(const F& a) {
    return each([&](int i) { return std::fabs(a.x[i]); });
  }
  static F copy_sign(const F& a, const F& b) {
    return each([&](int i) { return std::copysign(a.x[i], b.x[i]); });
  }
  static F round(const F& a) {  // |a| < 2^22
    return each([&](int i) { return (a.x[i] + 12582912.0f) - 12582912.0f; });
  }
  static F times_power_of_two(const F& a, const F& n) {
    return each([&](int i) {
      return a.x[i] * std::bit_cast<float>(uint32_t(int(n.x[i] == n.x[i] ? n.x[i] : 0) + 127) << 23);
    });
  }
  static F keep(const F& a, int at, int first, int last, float otherwise) {
    return each([&](int i) { return at + i >= first && at + i < last ? a.x[i] : otherwise; });
  }
  static float first(const F& a) { return a.x[0]; }
  static float horizontal_max(const F& a) {
    float m = a.x[0];
    for (int i = 1; i < N; ++i) m = a.x[i] > m ? a.x[i] : m;
    return m;
  }
  static float horizontal_sum(const F& a) {
    float s = a.x[0];
    for (int i = 1; i < N; ++i) s += a.x[i];
    return s;
  }
  static void transpose(F (&a)[N]) {
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < i; ++j) {
        const float t = a[i].x[j];
        a[i].x[j] = a[j].x[i];
        a[j].x[i] = t;
      }
  }
};

}  // namespace

const TileKernels kAttentionScalar = kF32Kernels<Plain>;

}  // namespace cairn::cpu
