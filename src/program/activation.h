#pragma once

#include <optional>
#include <string_view>

#include "program/value.h"

namespace cairn::program {

enum class Activation : uint8_t {
  identity,
  relu,
  silu,        // x sigmoid(x)
  gelu,        // x Phi(x), exact (erf)
  gelu_tanh,   // Hendrycks & Gimpel's tanh approximation, "gelu_new" and "gelu_pytorch_tanh"
  quick_gelu,  // x sigmoid(1.702 x)
  sigmoid,
};
std::string_view to_string(Activation);
// Names as config.json's hidden_act spells them; nullopt when unknown.
std::optional<Activation> find_activation(std::string_view hidden_act);

// y = act(x)
struct Activate {
  static constexpr const char* kName = "activate";
  Value x, y;  // same shape
  Activation activation = Activation::relu;
  bool operator==(const Activate&) const = default;
  void describe(auto& d) const { d.in("x", x), d.out("y", y), d.field("act", to_string(activation)); }
};

// y = act(gate) * up
struct GatedActivation {
  static constexpr const char* kName = "gated_activation";
  Value gate, up, y;  // same shape
  Activation activation = Activation::silu;
  bool operator==(const GatedActivation&) const = default;
  void describe(auto& d) const {
    d.in("gate", gate), d.in("up", up), d.out("y", y), d.field("act", to_string(activation));
  }
};

}  // namespace cairn::program
