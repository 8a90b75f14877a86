#include "program/fuse.h"

#include <optional>

namespace cairn::program {
namespace {

std::vector<int> count_readers(const Program& program) {
  std::vector<int> readers(program.values.size(), 0);
  for (const auto& instruction : program.instructions)
    for (Value v : uses(instruction.operation).in) ++readers[size_t(v.id)];
  for (Value output : {program.logits, program.hidden})
    if (output) ++readers[size_t(output.id)];
  return readers;
}

// The gate and up products feed nothing but the activation that follows at once.
std::optional<GatedMatMul> fuse_gated(const Operation& first, const Operation& second,
                                      const std::vector<int>& readers) {
  const auto* matmul = std::get_if<MatMul>(&first);
  const auto* gated = std::get_if<GatedActivation>(&second);
  if (!matmul || !gated || matmul->products.size() != 2) return std::nullopt;
  const Product *gate = nullptr, *up = nullptr;
  for (const auto& product : matmul->products) {
    if (product.bias || readers[size_t(product.y.id)] != 1) return std::nullopt;
    if (product.y == gated->gate) gate = &product;
    if (product.y == gated->up) up = &product;
  }
  if (!gate || !up) return std::nullopt;
  return GatedMatMul{matmul->x, gate->weight, up->weight, gated->y, gated->activation};
}

std::optional<AddRmsNorm> fuse_add_norm(const Operation& first, const Operation& second) {
  const auto* add = std::get_if<Add>(&first);
  const auto* norm = std::get_if<RmsNorm>(&second);
  if (!add || !norm || norm->x != add->y || norm->group != 0 || add->b_scale != 1) return std::nullopt;
  return AddRmsNorm{add->a, add->b, add->y, norm->weight, norm->y, norm->eps, norm->offset};
}

class Expander {
 public:
  explicit Expander(Program& out) : out_(out) {}

  template <typename Op>
  void operator()(const Op& op, const Instruction& at) {
    append(op, at);
  }
  void operator()(const GatedMatMul& op, const Instruction& at) {
    const Value gate = like(op.y, "gate"), up = like(op.y, "up");
    append(MatMul{op.x, {{op.gate, {}, gate}, {op.up, {}, up}}}, at);
    append(GatedActivation{gate, up, op.y, op.activation}, at);
  }
  void operator()(const AddRmsNorm& op, const Instruction& at) {
    append(Add{op.a, op.b, op.sum, 1}, at);
    append(RmsNorm{op.sum, op.weight, op.y, op.eps, op.offset, 0}, at);
  }
  void operator()(const LowRankMlp& op, const Instruction& at) {
    const Extent rows = out_.info(op.p).shape.front(), wide{out_.info(op.up).shape[0], Symbol::none};
    const Value up = make(at, "up", {rows, wide}), activated = make(at, "activated", {rows, wide});
    append(MatMul{op.p, {{op.up, op.up_bias, up}}}, at);
    if (op.gate_p) {
      const Value gate = make(at, "gate", {rows, wide});
      append(MatMul{op.gate_p, {{op.gate, op.gate_bias, gate}}}, at);
      append(GatedActivation{gate, up, activated, op.activation}, at);
    } else {
      append(Activate{up, activated, op.activation}, at);
    }
    append(MatMul{activated, {{op.down, {}, op.y}}}, at);
  }
  void operator()(const LowRankAttention& op, const Instruction& at) {
    out_.kv[size_t(op.slot)].kv_heads = op.kv_heads;
    const auto expand = [&](const LowRankAttention::Factor& f, const char* name) {
      const Value y =
          make(at, name, {out_.info(f.p).shape.front(), Extent{out_.info(f.up).shape[0], Symbol::none}});
      append(MatMul{f.p, {{f.up, f.bias, y}}}, at);
      return y;
    };
    const Value q = expand(op.q, "q"), k = expand(op.k, "k"), v = expand(op.v, "v");
    const Value written = make(at, "kv", {out_.info(op.y).shape.front()}, DType::token);
    append(KvWrite{k, v, written, op.slot}, at);
    append(Attention{q, written, op.y, op.slot, op.heads, op.scale, op.window, false, op.softcap, {}, false},
           at);
  }
  void operator()(const Logits& op, const Instruction& at) {
    if (op.scale == 1 && op.softcap == 0) {
      append(MatMul{op.x, {{op.weight, op.bias, op.y}}}, at);
      return;
    }
    const Value raw = like(op.y, "raw_logits");
    append(MatMul{op.x, {{op.weight, op.bias, raw}}}, at);
    append(SoftCap{raw, op.y, op.scale, op.softcap}, at);
  }

 private:
  template <typename Op>
  void append(Op op, const Instruction& at) {
    out_.instructions.push_back({std::move(op), at.name, at.layer, at.lane});
  }
  Value make(const Instruction& at, const char* name, Shape shape, DType dtype = DType::f32) {
    out_.values.push_back({at.name + "." + name, dtype, std::move(shape)});
    return {int32_t(out_.values.size()) - 1};
  }
  Value like(Value v, const char* name) {
    ValueInfo info = out_.info(v);
    info.name += std::string(".") + name;
    out_.values.push_back(std::move(info));
    return {int32_t(out_.values.size()) - 1};
  }
  Program& out_;
};

}  // namespace

Program fuse(const Program& program) {
  const auto readers = count_readers(program);
  Program result = program;
  result.instructions.clear();
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const auto& here = program.instructions[i];
    if (i + 1 < program.instructions.size()) {
      const auto& next = program.instructions[i + 1];
      if (here.lane == next.lane && here.layer == next.layer) {
        if (const auto gated = fuse_gated(here.operation, next.operation, readers)) {
          result.instructions.push_back({*gated, here.name, here.layer, here.lane});
          ++i;
          continue;
        }
      }
      // The norm that follows a residual sum may belong to the next layer; the sum keeps its own readers.
      if (here.lane == next.lane) {
        if (const auto normed = fuse_add_norm(here.operation, next.operation)) {
          result.instructions.push_back({*normed, next.name, next.layer, here.lane});
          ++i;
          continue;
        }
      }
    }
    result.instructions.push_back(here);
  }
  check(result);
  return result;
}

Program expand(const Program& program) {
  Program result = program;
  result.instructions.clear();
  Expander expander(result);
  for (const auto& instruction : program.instructions)
    std::visit([&](const auto& op) { expander(op, instruction); }, instruction.operation);
  check(result);
  return result;
}

}  // namespace cairn::program
