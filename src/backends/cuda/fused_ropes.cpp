#include "backends/cuda/fused_ropes.h"

#include <map>

namespace cairn::cuda {

std::vector<FusedRope> find_fused_ropes(const program::Program& program) {
  const auto& instructions = program.instructions;
  std::vector<FusedRope> fused(instructions.size());
  std::map<int32_t, int> readers;
  for (const auto& instruction : instructions)
    for (const program::Value v : uses(instruction.operation).in) ++readers[v.id];
  for (size_t i = 2; i < instructions.size(); ++i) {
    const auto* write = std::get_if<program::KvWrite>(&instructions[i].operation);
    const auto* a = std::get_if<program::Rope>(&instructions[i - 2].operation);
    const auto* b = std::get_if<program::Rope>(&instructions[i - 1].operation);
    if (!write || !a || !b) continue;
    const auto* k = a->y == write->k ? a : b;
    const auto* q = k == a ? b : a;
    bool read_by_attention = false;
    for (const auto& instruction : instructions)
      if (const auto* op = std::get_if<program::Attention>(&instruction.operation))
        read_by_attention |= op->q == q->y && op->slot == write->slot;
    if (k->y != write->k || !read_by_attention || readers[q->y.id] != 1 || readers[k->y.id] != 1 ||
        q->table != k->table || q->pairing != k->pairing || q->rotary_dim != k->rotary_dim)
      continue;
    fused[i].q = q, fused[i].k = k;
    fused[i - 1].skip = fused[i - 2].skip = true;
  }
  return fused;
}

}  // namespace cairn::cuda
