// What a model family's code calls: each method appends one instruction and returns the value it makes.
// Names follow the scope: { auto scope = b.layer(3); b.rms_norm(x, "input_layernorm.weight", ...); }
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "program/program.h"

namespace cairn::program {

// A weight to be: the stored tensor's name and, for parts of a fused tensor, which rows.
struct Stored {
  std::string name;
  int64_t first_row = 0, stored_rows = 0;
  bool transposed = false;
  Stored(std::string n) : name(std::move(n)) {}
  Stored(const char* n) : name(n) {}
  Stored(std::string n, int64_t first, int64_t of) : name(std::move(n)), first_row(first), stored_rows(of) {}
};

class Builder {
 public:
  explicit Builder(std::string model);

  // Instructions that follow belong to this layer (-1: none).
  void layer(int32_t index) { layer_ = index; }

  Value ids() const { return program_.ids; }
  Value positions() const { return program_.positions; }
  int64_t width(Value v) const { return program_.width(v); }

  Weight weight(const Stored&, std::vector<int64_t> shape);

  // ids absent: row `offset` of the table for every token.
  Value embed(Value ids, const Stored& table, int64_t rows, int64_t dim, float scale = 1, int64_t offset = 0);

  struct Linear {
    Stored weight;
    int64_t out = 0;
    std::optional<Stored> bias;
  };
  Value matmul(Value x, const Linear&);
  // Several weights over one x, in one instruction.
  std::vector<Value> matmul(Value x, std::span<const Linear>);

  Value rms_norm(Value x, const std::optional<Stored>& weight, float eps, float offset = 0,
                 int64_t group = 0);
  Value layer_norm(Value x, const std::optional<Stored>& weight, const std::optional<Stored>& bias,
                   float eps);
  Value add(Value a, Value b, float b_scale = 1);
  Value clamp(Value x, float limit);
  Value activate(Value x, Activation);
  Value gated(Value gate, Value up, Activation);
  Value gate_rows(Value x, Value gate);

  int32_t rope_table(const RopeTable&);  // equal tables share one index
  Value rope(Value x, int64_t heads, int64_t head_dim, int64_t rotary_dim, RopePairing, int32_t table);

  struct AttentionOptions {
    int64_t heads = 0, kv_heads = 0, head_dim_k = 0, head_dim_v = 0;
    float scale = 0;
    int64_t window = 0;
    float softcap = 0;
    std::optional<Stored> sinks;
    bool alibi = false;
    bool causal = true;
  };
  // Writes k and v to a cache slot and attends to it. The slot is new; what is not causal is read within the
  // step only and takes the last slot of that shape again.
  Value attention(Value q, Value k, Value v, const AttentionOptions&);

  struct Routed {
    Value weights, chosen;
  };
  Routed route(Value scores, int64_t top_k, Routing);
  std::vector<Value> expert_matmul(Value x, Value chosen, bool per_choice, int64_t experts,
                                   std::span<const Linear>);
  Value expert_combine(Value x, Value weights);

  // The rows whose scores are wanted; call once, before the final norm.
  Value gather_logit_rows(Value x);
  void logits(Value x, const Linear&, float scale = 1, float softcap = 0);
  // What a model without scores gives: x's rows.
  void hidden(Value x) { program_.hidden = x; }

  // Checks and hands over the program.
  Program finish();

 private:
  Value value(std::string_view name, Shape, DType = DType::f32);
  template <typename Op>
  void append(Op op, std::string_view name);
  std::string scoped(std::string_view name) const;
  Extent rows(Value v) const { return program_.info(v).shape.front(); }

  Program program_;
  std::unordered_multimap<std::string, int32_t> weights_by_name_;  // ids in program_.weights
  int32_t layer_ = -1;
};

}  // namespace cairn::program
