#pragma once

#include "program/value.h"

namespace cairn::program {

// y = a + b * b_scale
struct Add {
  static constexpr const char* kName = "add";
  Value a, b, y;  // same shape; y may share a's storage
  float b_scale = 1;
  bool operator==(const Add&) const = default;
  void describe(auto& d) const {
    d.in("a", a), d.in("b", b), d.out("y", y);
    if (b_scale != 1) d.field("b_scale", b_scale);
  }
};

// y = min(max(x, -limit), limit)
struct Clamp {
  static constexpr const char* kName = "clamp";
  Value x, y;
  float limit = 0;
  bool operator==(const Clamp&) const = default;
  void describe(auto& d) const { d.in("x", x), d.out("y", y), d.field("limit", limit); }
};

// y = cap * tanh(x * scale / cap); cap 0: y = x * scale
struct SoftCap {
  static constexpr const char* kName = "soft_cap";
  Value x, y;
  float scale = 1, cap = 0;
  bool operator==(const SoftCap&) const = default;
  void describe(auto& d) const { d.in("x", x), d.out("y", y), d.field("scale", scale), d.field("cap", cap); }
};

// y[t,:] = x[t,:] * sigmoid(gate[t]): Qwen2-MoE's gate on its shared expert
struct GateRows {
  static constexpr const char* kName = "gate_rows";
  Value x;     // [tokens, dim]
  Value gate;  // [tokens, 1]
  Value y;
  bool operator==(const GateRows&) const = default;
  void describe(auto& d) const { d.in("x", x), d.in("gate", gate), d.out("y", y); }
};

}  // namespace cairn::program
