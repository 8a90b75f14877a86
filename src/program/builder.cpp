#include "program/builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace cairn::program {
namespace {

const Extent kTokens{1, Symbol::tokens};
const Extent kLogits{1, Symbol::logits};

Extent constant(int64_t size) { return {size, Symbol::none}; }

// "model.layers.3.self_attn.q_proj.weight" -> "q_proj"
std::string_view short_name(std::string_view tensor) {
  for (std::string_view suffix : {".weight", ".bias"})
    if (tensor.ends_with(suffix)) tensor.remove_suffix(suffix.size());
  const auto dot = tensor.rfind('.');
  return dot == std::string_view::npos ? tensor : tensor.substr(dot + 1);
}

}  // namespace

Builder::Builder(std::string model) {
  program_.model = std::move(model);
  program_.ids = value("ids", {kTokens}, DType::i32);
  program_.positions = value("positions", {kTokens}, DType::i32);
  program_.logit_rows = value("logit_rows", {kLogits}, DType::i32);
}

std::string Builder::scoped(std::string_view name) const {
  return layer_ < 0 ? std::string(name) : fmt::format("layers.{}.{}", layer_, name);
}

Value Builder::value(std::string_view name, Shape shape, DType dtype) {
  program_.values.push_back({scoped(name), dtype, std::move(shape)});
  return {int32_t(program_.values.size()) - 1};
}

template <typename Op>
void Builder::append(Op op, std::string_view name) {
  program_.instructions.push_back({std::move(op), scoped(name), layer_, 0});
}

Weight Builder::weight(const Stored& stored, std::vector<int64_t> shape) {
  WeightInfo info{stored.name, std::move(shape), stored.first_row, stored.stored_rows, stored.transposed, 0};
  // A tied embedding is one weight with two readers.
  const auto [first, last] = weights_by_name_.equal_range(info.name);
  for (auto known = first; known != last; ++known)
    if (program_.weights[size_t(known->second)] == info) return {known->second};
  const auto id = int32_t(program_.weights.size());
  weights_by_name_.emplace(info.name, id);
  program_.weights.push_back(std::move(info));
  return {id};
}

Value Builder::embed(Value ids, const Stored& table, int64_t rows, int64_t dim, float scale, int64_t offset) {
  const Value y = value("embed", {kTokens, constant(dim)});
  append(Embed{ids, weight(table, {rows, dim}), y, scale, offset}, short_name(table.name));
  return y;
}

Value Builder::matmul(Value x, const Linear& linear) { return matmul(x, std::span(&linear, 1)).front(); }

std::vector<Value> Builder::matmul(Value x, std::span<const Linear> linears) {
  MatMul op{x, {}};
  std::vector<Value> results;
  std::string name;
  for (const auto& linear : linears) {
    const auto part = short_name(linear.weight.name);
    const Value y = value(part, {rows(x), constant(linear.out)});
    op.products.push_back({weight(linear.weight, {linear.out, width(x)}),
                           linear.bias ? weight(*linear.bias, {linear.out}) : Weight{}, y});
    results.push_back(y);
    if (!name.ends_with(part)) name += (name.empty() ? "" : "+") + std::string(part);
  }
  append(std::move(op), name);
  return results;
}

Value Builder::rms_norm(Value x, const std::optional<Stored>& gain, float eps, float offset, int64_t group) {
  const auto name = gain ? short_name(gain->name) : "norm";
  const Value y = value(name, program_.info(x).shape);
  const Weight w = gain ? weight(*gain, {group != 0 ? group : width(x)}) : Weight{};
  append(RmsNorm{x, w, y, eps, offset, group}, name);
  return y;
}

Value Builder::layer_norm(Value x, const std::optional<Stored>& gain, const std::optional<Stored>& bias,
                          float eps) {
  const auto name = gain ? short_name(gain->name) : "norm";
  const Value y = value(name, program_.info(x).shape);
  append(LayerNorm{x, gain ? weight(*gain, {width(x)}) : Weight{},
                   bias ? weight(*bias, {width(x)}) : Weight{}, y, eps},
         name);
  return y;
}

Value Builder::add(Value a, Value b, float b_scale) {
  const Value y = value("sum", program_.info(a).shape);
  append(Add{a, b, y, b_scale}, "add");
  return y;
}

Value Builder::clamp(Value x, float limit) {
  const Value y = value("clamped", program_.info(x).shape);
  append(Clamp{x, y, limit}, "clamp");
  return y;
}

Value Builder::activate(Value x, Activation activation) {
  const Value y = value("activated", program_.info(x).shape);
  append(Activate{x, y, activation}, "activation");
  return y;
}

Value Builder::gated(Value gate, Value up, Activation activation) {
  const Value y = value("gated", program_.info(up).shape);
  append(GatedActivation{gate, up, y, activation}, "activation");
  return y;
}

Value Builder::gate_rows(Value x, Value gate) {
  const Value y = value("gated_rows", program_.info(x).shape);
  append(GateRows{x, gate, y}, "gate");
  return y;
}

int32_t Builder::rope_table(const RopeTable& table) {
  const auto same = std::find(program_.ropes.begin(), program_.ropes.end(), table);
  if (same != program_.ropes.end()) return int32_t(same - program_.ropes.begin());
  program_.ropes.push_back(table);
  return int32_t(program_.ropes.size()) - 1;
}

Value Builder::rope(Value x, int64_t heads, int64_t head_dim, int64_t rotary_dim, RopePairing pairing,
                    int32_t table) {
  const Value y = value("rope", program_.info(x).shape);
  append(Rope{x, program_.positions, y, heads, head_dim, rotary_dim, pairing, table}, "rope");
  return y;
}

Value Builder::attention(Value q, Value k, Value v, const AttentionOptions& o) {
  KvSlot kv{o.kv_heads, o.head_dim_k, o.head_dim_v, o.causal ? o.window : 0};
  if (o.causal || program_.kv.empty() || program_.kv.back() != kv) program_.kv.push_back(kv);
  const auto slot = int32_t(program_.kv.size()) - 1;
  const Value written = value("kv", {kTokens}, DType::token);
  append(KvWrite{k, v, written, slot}, "kv_write");
  const Value y = value("attention", {kTokens, constant(o.heads * o.head_dim_v)});
  append(Attention{q, written, y, slot, o.heads, o.scale, o.window, o.causal, o.softcap,
                   o.sinks ? weight(*o.sinks, {o.heads}) : Weight{}, o.alibi},
         "attention");
  return y;
}

Builder::Routed Builder::route(Value scores, int64_t top_k, Routing routing) {
  const Routed routed{value("expert_weights", {kTokens, constant(top_k)}),
                      value("experts", {kTokens, constant(top_k)}, DType::i32)};
  append(Route{scores, routed.weights, routed.chosen, routing}, "route");
  return routed;
}

std::vector<Value> Builder::expert_matmul(Value x, Value chosen, bool per_choice, int64_t experts,
                                          std::span<const Linear> linears) {
  const int64_t top_k = width(chosen);
  ExpertMatMul op{x, chosen, per_choice, {}};
  std::vector<Value> results;
  std::string name;
  for (const auto& linear : linears) {
    const auto part = short_name(linear.weight.name);
    const Value y = value(part, {Extent{top_k, Symbol::tokens}, constant(linear.out)});
    op.products.push_back({weight(linear.weight, {experts, linear.out, width(x)}), Weight{}, y});
    results.push_back(y);
    name += (name.empty() ? "" : "+") + std::string(part);
  }
  append(std::move(op), name);
  return results;
}

Value Builder::expert_combine(Value x, Value weights) {
  const Value y = value("experts_sum", {kTokens, constant(width(x))});
  append(ExpertCombine{x, weights, y}, "combine");
  return y;
}

Value Builder::gather_logit_rows(Value x) {
  layer_ = -1;
  const Value y = value("last", {kLogits, constant(width(x))});
  append(GatherRows{x, program_.logit_rows, y}, "gather_rows");
  return y;
}

void Builder::logits(Value x, const Linear& linear, float scale, float softcap) {
  layer_ = -1;
  const Value y = value("logits", {rows(x), constant(linear.out)});
  append(Logits{x, weight(linear.weight, {linear.out, width(x)}),
                linear.bias ? weight(*linear.bias, {linear.out}) : Weight{}, y, scale, softcap},
         short_name(linear.weight.name));
  program_.hidden = x;
  program_.logits = y;
}

Program Builder::finish() {
  check(program_);
  return std::move(program_);
}

}  // namespace cairn::program
