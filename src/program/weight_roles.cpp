#include "program/weight_roles.h"

#include <type_traits>

namespace cairn::program {
namespace {

// Everything that is no factor of a product and no table is a vector, also in instructions to come.
template <typename Op>
void note(const Op& op, std::vector<WeightRoles>& roles) {
  const auto at = [&](Weight w) -> WeightRoles& {
    static WeightRoles absent;
    return w ? roles[size_t(w.id)] : absent;
  };
  if constexpr (std::is_same_v<Op, Embed>) {
    at(op.table).table = true;
  } else if constexpr (std::is_same_v<Op, MatMul> || std::is_same_v<Op, ExpertMatMul>) {
    for (const auto& product : op.products) at(product.weight).matrix = true, at(product.bias).vector = true;
  } else if constexpr (std::is_same_v<Op, GatedMatMul>) {
    at(op.gate).matrix = at(op.up).matrix = true;
  } else if constexpr (std::is_same_v<Op, LowRankMlp>) {
    at(op.up).matrix = at(op.gate).matrix = at(op.down).matrix = true;
    at(op.up_bias).vector = at(op.gate_bias).vector = true;
  } else if constexpr (std::is_same_v<Op, LowRankAttention>) {
    for (const auto* f : {&op.q, &op.k, &op.v}) at(f->up).matrix = true, at(f->bias).vector = true;
  } else if constexpr (std::is_same_v<Op, Logits>) {
    at(op.weight).matrix = true, at(op.bias).vector = true;
  } else if constexpr (!std::is_same_v<Op, DecodeGroup>) {  // which does not say what they are for
    for (const Weight w : uses(Operation(op)).weights) at(w).vector = true;
  }
}

}  // namespace

std::vector<WeightRoles> weight_roles(const Program& program) {
  std::vector<WeightRoles> roles(program.weights.size());
  for (const auto& instruction : program.instructions)
    std::visit([&](const auto& op) { note(op, roles); }, instruction.operation);
  return roles;
}

}  // namespace cairn::program
