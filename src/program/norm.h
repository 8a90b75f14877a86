#pragma once

#include "program/value.h"

namespace cairn::program {

// Over each group g of the last axis: y = x / sqrt(mean_g(x^2) + eps) * (offset + weight)   (Zhang & Sennrich
// 2019)
struct RmsNorm {
  static constexpr const char* kName = "rms_norm";
  Value x;        // [rows, dim]
  Weight weight;  // [group]; absent: ones
  Value y;        // like x; may share x's storage
  float eps = 1e-6f;
  float offset = 0;   // Gemma stores weight - 1: offset 1
  int64_t group = 0;  // 0: the whole row; head_dim: each head by itself
  bool operator==(const RmsNorm&) const = default;
  void describe(auto& d) const {
    d.in("x", x);
    if (weight) d.weight("w", weight);
    d.out("y", y), d.field("eps", eps);
    if (offset != 0) d.field("offset", offset);
    if (group != 0) d.field("group", group);
  }
};

// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
struct LayerNorm {
  static constexpr const char* kName = "layer_norm";
  Value x;              // [rows, dim]
  Weight weight, bias;  // [dim]; absent: ones, zeros
  Value y;
  float eps = 1e-5f;
  bool operator==(const LayerNorm&) const = default;
  void describe(auto& d) const {
    d.in("x", x);
    if (weight) d.weight("w", weight);
    if (bias) d.weight("bias", bias);
    d.out("y", y), d.field("eps", eps);
  }
};

// sum = a + b; y = rms_norm(sum). Fused: the residual stream is read and written once. Expands to Add and
// RmsNorm.
struct AddRmsNorm {
  static constexpr const char* kName = "add_rms_norm";
  Value a, b;     // [rows, dim]
  Value sum;      // [rows, dim]
  Weight weight;  // [dim]; absent: ones
  Value y;        // [rows, dim]
  float eps = 1e-6f, offset = 0;
  bool operator==(const AddRmsNorm&) const = default;
  void describe(auto& d) const {
    d.in("a", a), d.in("b", b), d.out("sum", sum);
    if (weight) d.weight("w", weight);
    d.out("y", y), d.field("eps", eps);
    if (offset != 0) d.field("offset", offset);
  }
};

}  // namespace cairn::program
