#pragma once

#include "program/activation.h"
#include "program/value.h"

namespace cairn::program {

// y = act(p up^T + up_bias) down^T, or (act(gate_p gate^T + gate_bias) * (p up^T + up_bias)) down^T. Fused;
// expands to MatMul, Activate (GatedActivation) and MatMul. The wide rows between are never in memory all at
// once.
struct LowRankMlp {
  static constexpr const char* kName = "low_rank_mlp";
  Value p;                 // [rows, rank]
  Weight up, up_bias;      // [hidden, rank], [hidden] or absent
  Value gate_p;            // [rows, gate's rank], or absent: no gate
  Weight gate, gate_bias;  // [hidden, gate's rank], [hidden] or absent
  Weight down;             // [out, hidden]
  Value y;                 // [rows, out]
  Activation activation = Activation::gelu;
  bool operator==(const LowRankMlp&) const = default;
  void describe(auto& d) const {
    d.in("p", p), d.weight("up", up);
    if (up_bias) d.weight("up_bias", up_bias);
    if (gate_p) {
      d.in("gate_p", gate_p), d.weight("gate", gate);
      if (gate_bias) d.weight("gate_bias", gate_bias);
    }
    d.weight("down", down), d.out("y", y), d.field("act", to_string(activation));
  }
};

// Attention whose q, k and v are p up^T + bias each; the cache slot holds one head at a time, of this step
// only. Fused; expands to three MatMuls, KvWrite and Attention without a causal mask.
struct LowRankAttention {
  static constexpr const char* kName = "low_rank_attention";
  struct Factor {
    Value p;          // [tokens, rank]
    Weight up, bias;  // [heads * head_dim, rank], [heads * head_dim] or absent
    bool operator==(const Factor&) const = default;
  };
  Factor q, k, v;
  Value y;  // [tokens, heads * head_dim_v]
  int32_t slot = 0;
  int64_t heads = 0, kv_heads = 0;
  float scale = 0;
  int64_t window = 0;  // as Attention's
  float softcap = 0;
  bool operator==(const LowRankAttention&) const = default;
  void describe(auto& d) const {
    const auto factor = [&](const char* name, const Factor& f) {
      d.in(name, f.p), d.weight("up", f.up);
      if (f.bias) d.weight("bias", f.bias);
    };
    factor("q", q), factor("k", k), factor("v", v);
    d.out("y", y), d.field("slot", slot), d.field("heads", heads);
    if (kv_heads != heads) d.field("kv_heads", kv_heads);
    d.field("scale", scale);
    if (window != 0) d.field("window", window);
    if (softcap != 0) d.field("softcap", softcap);
  }
};

}  // namespace cairn::program
