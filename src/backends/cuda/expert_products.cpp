#include "backends/cuda/expert_products.h"

#include <algorithm>
#include <cassert>
#include <map>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

using program::Value;

constexpr int64_t kMostPairs = 4096;  // that one launch of expert_matmul_few takes

// Of class prompt: as many experts as the sorting kernel counts.
bool grouped(const MatMulCall& call) { return call.w->pieces <= kMostExperts; }

int64_t bytes_per_element(const MatMulCall& call) { return call.y_f32 ? 4 : 2; }

// Gate and up in one call, as the kernels for many rows take them.
MatMulCall joined(std::span<const MatMulCall> calls, program::Activation activation) {
  MatMulCall both = calls[0];
  both.up = calls[1].w, both.activation = activation;
  return both;
}

}  // namespace

std::vector<ExpertRole> expert_roles(const program::Program& program, const WeightForms& weights) {
  const auto& instructions = program.instructions;
  std::map<int32_t, int> readers;
  for (const auto& instruction : instructions)
    for (const Value v : uses(instruction.operation).in) ++readers[v.id];
  std::vector<ExpertRole> roles(instructions.size());
  for (size_t i = 2; i < instructions.size(); ++i) {
    const auto* in = std::get_if<program::ExpertMatMul>(&instructions[i - 2].operation);
    const auto* gated = std::get_if<program::GatedActivation>(&instructions[i - 1].operation);
    const auto* out = std::get_if<program::ExpertMatMul>(&instructions[i].operation);
    if (!in || !gated || !out || in->products.size() != 2 || in->per_choice || !out->per_choice) continue;
    const auto &gate = in->products[0], &up = in->products[1];
    const auto packed = [&](const program::Product& p) {
      return weights.is_packed(p.weight) && weights.packed(p.weight).pieces <= kMostExperts;
    };
    if (gated->gate != gate.y || gated->up != up.y || out->x != gated->y || out->chosen != in->chosen ||
        gate.bias || up.bias || readers[gate.y.id] != 1 || readers[up.y.id] != 1 ||
        readers[gated->y.id] != 1 || !packed(gate) || !packed(up) ||
        weights.packed(gate.weight).form != weights.packed(up.weight).form ||
        !std::all_of(out->products.begin(), out->products.end(), packed))
      continue;
    roles[i - 2] = {ExpertRole::inputs, gated->activation};
    roles[i - 1] = {ExpertRole::gated, {}};
    roles[i] = {ExpertRole::outputs, {}};
  }
  return roles;
}

ExpertRoom::Sizes ExpertRoom::sizes(const program::Program& program, const program::Bounds& bounds) {
  Sizes s;
  for (const auto& instruction : program.instructions) {
    const auto* op = std::get_if<program::ExpertMatMul>(&instruction.operation);
    if (!op) continue;
    const auto& chosen = program.info(op->chosen);
    s.pairs = std::max(s.pairs, bounds.of(chosen.shape.front()) * program.width(op->chosen));
    s.in = std::max(s.in, program.width(op->x));
    for (const auto& p : op->products) {
      s.experts = std::max(s.experts, program.info(p.weight).shape.front());
      s.inner = std::max(s.inner, op->per_choice ? program.width(op->x) : program.width(p.y));
    }
  }
  return s;
}

uint64_t ExpertRoom::Sizes::sorted_bytes() const {
  return round_up(uint64_t(expert_room(pairs, experts, std::max(in, inner))), uint64_t{256});
}
uint64_t ExpertRoom::Sizes::bytes() const {
  return pairs > 0 ? sorted_bytes() + uint64_t(pairs * inner * 2) : 0;
}

ExpertRoom::ExpertRoom(const Device& device, const Sizes& sizes)
    : memory_(device, size_t(sizes.bytes())), sorted_bytes_(sizes.sorted_bytes()) {}

void multiply_experts(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                      const ExpertChoice& choice, int64_t tokens, int64_t decode_tokens,
                      const ExpertRole& role, ExpertRoom& room, ManyScratch& scratch) {
  const int64_t top_k = choice.top_k, x_rows = choice.per_choice ? top_k : 1;
  const MatMulCall& first_call = calls.front();
  const int64_t few = grouped(first_call) ? decode_tokens : tokens, together = kMostPairs / top_k;
  // The call for `count` tokens from `first` on.
  const auto part = [&](MatMulCall c, int64_t first, int64_t count) {
    c.m = count * top_k;
    c.x += Address(first * x_rows * c.w->cols * 2);
    c.y += Address(first * top_k * c.w->rows * bytes_per_element(c));
    return c;
  };
  for (const auto& call : calls)
    for (int64_t first = 0; first < few; first += together) {
      const MatMulCall c = part(call, first, std::min(together, few - first));
      const ExpertChoice of_part{choice.chosen + Address(first * top_k * 4), top_k, choice.per_choice};
      expert_matmul_few(kernels, stream, {&c, 1}, of_part);
    }
  if (few == tokens) return;

  const int64_t pairs = (tokens - few) * top_k;
  const Address mid = room.memory_.address() + room.sorted_bytes_;
  if (role.kind != ExpertRole::outputs) {
    const Address chosen = choice.chosen + Address(few * top_k * 4);
    const MatMulCall c = part(first_call, few, tokens - few);
    room.sorted_ = sort_by_expert(kernels, stream, c.x, c.w->cols, chosen, pairs, top_k / x_rows, c.w->pieces,
                                  room.memory_.address());
  }
  const auto multiply = [&](MatMulCall c, Address x, bool sorted_y) {
    ExpertRows experts = room.sorted_.experts;
    if (sorted_y) experts.order = 0;
    c.x = x, c.overlap_previous = true;
    matmul_many_experts(kernels, stream, c, experts, scratch);
  };
  if (role.kind == ExpertRole::inputs) {
    MatMulCall both = joined(calls, role.activation);
    both.m = pairs, both.y = mid, both.y_f32 = false;
    return multiply(both, room.sorted_.x, true);
  }
  for (const auto& call : calls)
    multiply(part(call, few, tokens - few), role.kind == ExpertRole::outputs ? mid : room.sorted_.x, false);
}

std::vector<Variant> expert_variants(const DeviceFacts& device, std::span<const MatMulCall> calls,
                                     const ExpertRole& role) {
  std::vector<Variant> variants;
  for (const auto& c : calls) variants.push_back(expert_matmul_few_variant(*c.w->form, false, device));
  if (!grouped(calls.front())) return variants;
  const auto note = [&](MatMulCall c) {
    for (auto& v : matmul_many_variants(device.capability, {&c, 1})) variants.push_back(std::move(v));
  };
  if (role.kind == ExpertRole::inputs) {
    MatMulCall both = joined(calls, role.activation);
    both.y_f32 = false;
    note(both);
  } else {
    for (const auto& c : calls) note(c);
  }
  return variants;
}

}  // namespace cairn::cuda
