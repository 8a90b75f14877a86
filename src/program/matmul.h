#pragma once

#include "program/activation.h"
#include "program/value.h"

namespace cairn::program {

// One weight applied to the instruction's prepared left side: y[t,n] = sum_k x[t,k] w[n,k] + bias[n]
struct Product {
  Weight weight;  // [out, in]
  Weight bias;    // [out] or absent
  Value y;        // [rows, out]
  bool operator==(const Product&) const = default;
};

// Several weights share one activation: it is prepared (rounded, quantized, packed) once.
struct MatMul {
  static constexpr const char* kName = "matmul";
  Value x;  // [rows, in]
  std::vector<Product> products;
  bool operator==(const MatMul&) const = default;
  void describe(auto& d) const {
    d.in("x", x);
    for (const auto& product : products) {
      d.weight("w", product.weight);
      if (product.bias) d.weight("bias", product.bias);
      d.out("y", product.y);
    }
  }
};

// y = act(x gate^T) * (x up^T). Fused; expands to MatMul and GatedActivation.
struct GatedMatMul {
  static constexpr const char* kName = "gated_matmul";
  Value x;          // [rows, in]
  Weight gate, up;  // [hidden, in]
  Value y;          // [rows, hidden]
  Activation activation = Activation::silu;
  bool operator==(const GatedMatMul&) const = default;
  void describe(auto& d) const {
    d.in("x", x), d.weight("gate", gate), d.weight("up", up), d.out("y", y);
    d.field("act", to_string(activation));
  }
};

// Next-token scores: y = cap(x w^T * scale + bias), cap(s) = softcap * tanh(s / softcap). Fused; expands to
// MatMul and SoftCap.
struct Logits {
  static constexpr const char* kName = "logits";
  Value x;  // [logits, dim]
  Weight weight, bias;
  Value y;  // [logits, vocabulary]
  float scale = 1, softcap = 0;
  bool operator==(const Logits&) const = default;
  void describe(auto& d) const {
    d.in("x", x), d.weight("w", weight);
    if (bias) d.weight("bias", bias);
    d.out("y", y);
    if (scale != 1) d.field("scale", scale);
    if (softcap != 0) d.field("softcap", softcap);
  }
};

}  // namespace cairn::program
