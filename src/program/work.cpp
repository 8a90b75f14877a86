#include "program/work.h"

#include <algorithm>

#include "program/program.h"

namespace cairn::program {
namespace {

struct Counter {
  const Program& program;
  const StepSizes& sizes;
  Work total;

  int64_t rows(Value v) const { return Bounds{sizes.tokens, sizes.logits}.of(program.info(v).shape.front()); }
  uint64_t elements(Value v) const { return uint64_t(rows(v) * program.width(v)); }
  uint64_t bytes(Value v) const { return elements(v) * tensor::bytes_of(program.info(v).dtype); }

  void activations(std::initializer_list<Value> values) {
    for (Value v : values) total.activation_bytes += bytes(v);
  }
  void weight(Weight w) {
    if (w) total.weight_bytes += program.info(w).bytes;
  }
  void product(Value x, Weight w, Weight bias, Value y) {
    weight(w), weight(bias);
    activations({y});
    total.operations += 2 * elements(y) * uint64_t(program.width(x));
  }

  void count(const Embed& op) {
    const auto& table = program.info(op.table);
    if (table.shape[0] > 0)
      total.weight_bytes += table.bytes / uint64_t(table.shape[0]) * uint64_t(op.ids ? rows(op.ids) : 1);
    if (op.ids) activations({op.ids});
    activations({op.y});
  }
  void count(const GatherRows& op) { activations({op.y, op.y}); }
  void count(const MatMul& op) {
    activations({op.x});
    for (const auto& p : op.products) product(op.x, p.weight, p.bias, p.y);
  }
  void count(const GatedMatMul& op) {
    activations({op.x});
    product(op.x, op.gate, {}, op.y);
    product(op.x, op.up, {}, op.y);
    total.activation_bytes -= bytes(op.y);  // y is written once
    total.operations += 6 * elements(op.y);
  }
  void count(const Logits& op) {
    activations({op.x});
    product(op.x, op.weight, op.bias, op.y);
  }
  void count(const Activate& op) { elementwise({op.x, op.y}, op.y, 5); }
  void count(const GatedActivation& op) { elementwise({op.gate, op.up, op.y}, op.y, 6); }
  void count(const Add& op) { elementwise({op.a, op.b, op.y}, op.y, 1); }
  void count(const Clamp& op) { elementwise({op.x, op.y}, op.y, 2); }
  void count(const SoftCap& op) { elementwise({op.x, op.y}, op.y, 5); }
  void count(const GateRows& op) { elementwise({op.x, op.gate, op.y}, op.y, 1); }
  void count(const RmsNorm& op) {
    elementwise({op.x, op.y}, op.y, 4);
    weight(op.weight);
  }
  void count(const LayerNorm& op) {
    elementwise({op.x, op.y}, op.y, 7);
    weight(op.weight), weight(op.bias);
  }
  void count(const AddRmsNorm& op) {
    elementwise({op.a, op.b, op.sum, op.y}, op.y, 5);
    weight(op.weight);
  }
  void count(const Rope& op) { elementwise({op.x, op.y}, op.y, 3); }
  void elementwise(std::initializer_list<Value> touched, Value y, uint64_t per_element) {
    activations(touched);
    total.operations += per_element * elements(y);
  }
  void count(const KvWrite& op) {
    activations({op.k, op.v});
    total.kv_bytes += (elements(op.k) + elements(op.v)) * uint64_t(sizes.kv_bytes_per_element_x16) / 16;
  }
  void count(const Attention& op) {
    const KvSlot& kv = program.kv[size_t(op.slot)];
    activations({op.q, op.y});
    // Each sequence's rows read its cache once; row r of n sees context + r + 1 keys, or the window's; all of
    // them without a causal mask.
    const int64_t sequences = std::max<int64_t>(sizes.sequences, 1),
                  rows_each = std::max<int64_t>(sizes.tokens / sequences, 1);
    const int64_t longest = sizes.context + rows_each;
    const int64_t read = op.window > 0 ? std::min(longest, op.window + rows_each - 1) : longest;
    int64_t pairs = 0;  // (query row, key) per head and sequence
    if (op.window > 0) {
      for (int64_t r = 0; r < rows_each; ++r) {
        const int64_t position = sizes.context + r;
        pairs += std::min(position + 1, op.window);
        if (!op.causal) pairs += std::min(longest - 1 - position, op.window - 1);
      }
    } else if (!op.causal) {
      pairs = rows_each * longest;
    } else {
      pairs = rows_each * sizes.context + rows_each * (rows_each + 1) / 2;
    }
    total.kv_bytes += uint64_t(sequences * read * kv.kv_heads * (kv.head_dim_k + kv.head_dim_v)) *
                      uint64_t(sizes.kv_bytes_per_element_x16) / 16;
    total.operations += 2 * uint64_t(sequences * pairs * op.heads * (kv.head_dim_k + kv.head_dim_v));
  }
  void count(const Route& op) { elementwise({op.scores, op.weights, op.chosen}, op.scores, 4); }
  void count(const ExpertMatMul& op) {
    activations({op.x, op.chosen});
    for (const auto& p : op.products) {
      const auto& info = program.info(p.weight);
      const int64_t experts = info.shape[0];
      const int64_t read = StepSizes::experts_read(experts, rows(op.chosen) * program.width(op.chosen));
      total.weight_bytes += info.bytes / uint64_t(experts) * uint64_t(read);
      activations({p.y});
      total.operations += 2 * elements(p.y) * uint64_t(program.width(op.x));
    }
  }
  void count(const LowRankMlp& op) {
    activations({op.p, op.y});
    if (op.gate_p) activations({op.gate_p});
    for (const Weight w : {op.up, op.up_bias, op.gate, op.gate_bias, op.down}) weight(w);
    const auto hidden = uint64_t(rows(op.p) * program.info(op.up).shape[0]);
    const int64_t gate = op.gate_p ? program.width(op.gate_p) : 0;
    total.operations += hidden * uint64_t(2 * (program.width(op.p) + gate + program.width(op.y)) + 5);
  }
  void count(const LowRankAttention& op) {
    const KvSlot& kv = program.kv[size_t(op.slot)];
    const int64_t sequences = std::max<int64_t>(sizes.sequences, 1),
                  rows_each = std::max<int64_t>(sizes.tokens / sequences, 1);
    for (const auto* f : {&op.q, &op.k, &op.v}) {
      activations({f->p});
      weight(f->up), weight(f->bias);
      total.operations += 2 * uint64_t(rows(f->p) * program.width(f->p) * program.info(f->up).shape[0]);
    }
    activations({op.y});
    const int64_t seen = op.window > 0 ? std::min(rows_each, 2 * op.window - 1) : rows_each;
    total.kv_bytes += uint64_t(2 * sizes.tokens * op.kv_heads * (kv.head_dim_k + kv.head_dim_v)) *
                      uint64_t(sizes.kv_bytes_per_element_x16) / 16;
    total.operations +=
        2 * uint64_t(sequences * rows_each * seen * op.heads * (kv.head_dim_k + kv.head_dim_v));
  }
  void count(const DecodeGroup& op) {
    total.weight_bytes += op.bytes;
    for (const Weight w : op.weights) {
      uint64_t elements_of = 1;
      for (const int64_t extent : program.info(w).shape) elements_of *= uint64_t(extent);
      total.activation_bytes += 2 * elements_of;  // written as bf16
    }
  }
  void count(const ExpertCombine& op) { elementwise({op.x, op.weights, op.y}, op.x, 2); }
};

}  // namespace

Work work(const Program& program, const Instruction& instruction, const StepSizes& sizes) {
  Counter counter{program, sizes, {}};
  std::visit([&](const auto& op) { counter.count(op); }, instruction.operation);
  return counter.total;
}

Work work(const Program& program, const StepSizes& sizes) {
  Work total;
  for (const auto& instruction : program.instructions) total += work(program, instruction, sizes);
  return total;
}

}  // namespace cairn::program
