#include "program/fuse_low_rank.h"

#include <algorithm>
#include <optional>

#include "program/low_rank.h"

namespace cairn::program {
namespace {

class Fuser {
 public:
  explicit Fuser(const Program& program)
      : program_(program), readers_(program.values.size(), 0), maker_(program.values.size(), -1) {
    for (size_t i = 0; i < program.instructions.size(); ++i) {
      const auto used = uses(program.instructions[i].operation);
      for (Value v : used.in) ++readers_[size_t(v.id)];
      for (Value v : used.out) maker_[size_t(v.id)] = int(i);
    }
    for (Value output : {program.logits, program.hidden})
      if (output) ++readers_[size_t(output.id)];
  }

  Program fuse() {
    Program result = program_;
    std::vector<std::optional<Operation>> replaced(program_.instructions.size());
    std::vector<bool> gone(program_.instructions.size(), false);
    const auto take = [&](size_t at, Operation op, std::initializer_list<Value> inner) {
      replaced[at] = std::move(op);
      for (Value v : inner)
        if (v) gone[size_t(maker_[size_t(v.id)])] = true;
    };
    for (size_t i = 0; i < program_.instructions.size(); ++i) {
      Value wide, gate, up;
      if (const auto mlp = fuse_mlp(i, wide, gate, up)) take(i, *mlp, {wide, gate, up});
    }
    fuse_attention(result, take);
    result.instructions.clear();
    for (size_t i = 0; i < program_.instructions.size(); ++i) {
      if (gone[i]) continue;
      result.instructions.push_back(program_.instructions[i]);
      if (replaced[i]) result.instructions.back().operation = *replaced[i];
    }
    check(result);
    return result;
  }

 private:
  template <typename Op>
  const Op* made_by(Value v) const {
    const int i = v ? maker_[size_t(v.id)] : -1;
    return i >= 0 ? std::get_if<Op>(&program_.instructions[size_t(i)].operation) : nullptr;
  }
  bool is_u(Weight w) const { return program_.info(w).name.ends_with(kLowRankU); }
  bool is_v(Weight w) const { return program_.info(w).name.ends_with(kLowRankV); }
  bool same_place(Value v, const Instruction& at) const {
    const auto& other = program_.instructions[size_t(maker_[size_t(v.id)])];
    return other.layer == at.layer && other.lane == at.lane;
  }
  // The one product of a U that makes v and nothing else, where only one instruction reads v.
  const MatMul* expansion(Value v) const {
    const auto* op = made_by<MatMul>(v);
    return op && op->products.size() == 1 && is_u(op->products[0].weight) && readers_[size_t(v.id)] == 1
               ? op
               : nullptr;
  }

  std::optional<LowRankMlp> fuse_mlp(size_t at, Value& wide, Value& gate, Value& up) const {
    const auto& here = program_.instructions[at];
    const auto* down = std::get_if<MatMul>(&here.operation);
    if (!down || down->products.size() != 1 || down->products[0].bias || !is_v(down->products[0].weight) ||
        readers_[size_t(down->x.id)] != 1)
      return std::nullopt;
    wide = down->x;
    LowRankMlp mlp;
    mlp.down = down->products[0].weight, mlp.y = down->products[0].y;
    if (const auto* act = made_by<Activate>(wide)) {
      up = act->x, mlp.activation = act->activation;
    } else if (const auto* gated = made_by<GatedActivation>(wide)) {
      gate = gated->gate, up = gated->up, mlp.activation = gated->activation;
      const auto* product = expansion(gate);
      if (!product || !same_place(gate, here)) return std::nullopt;
      mlp.gate_p = product->x;
      mlp.gate = product->products[0].weight, mlp.gate_bias = product->products[0].bias;
    } else {
      return std::nullopt;
    }
    const auto* product = expansion(up);
    if (!product || !same_place(up, here) || !same_place(wide, here)) return std::nullopt;
    mlp.p = product->x;
    mlp.up = product->products[0].weight, mlp.up_bias = product->products[0].bias;
    return mlp;
  }

  template <typename Take>
  void fuse_attention(Program& result, Take&& take) const {
    std::vector<std::pair<size_t, LowRankAttention>> found;
    for (size_t i = 0; i < program_.instructions.size(); ++i) {
      const auto* op = std::get_if<Attention>(&program_.instructions[i].operation);
      if (!op) continue;
      const auto* write = made_by<KvWrite>(op->written);
      const KvSlot& kv = program_.kv[size_t(op->slot)];
      const MatMul* products[] = {expansion(op->q), write ? expansion(write->k) : nullptr,
                                  write ? expansion(write->v) : nullptr};
      // Slots of one program must have one shape, so it is all or none.
      if (op->causal || op->sinks || op->alibi || readers_[size_t(op->written.id)] != 1 ||
          std::find(std::begin(products), std::end(products), nullptr) != std::end(products))
        return;
      LowRankAttention fused;
      LowRankAttention::Factor* const factors[] = {&fused.q, &fused.k, &fused.v};
      for (size_t f = 0; f < 3; ++f)
        *factors[f] = {products[f]->x, products[f]->products[0].weight, products[f]->products[0].bias};
      fused.y = op->y, fused.slot = op->slot, fused.heads = op->heads, fused.kv_heads = kv.kv_heads;
      fused.scale = op->scale, fused.window = op->window, fused.softcap = op->softcap;
      found.emplace_back(i, fused);
    }
    for (const auto& [i, fused] : found) {
      const auto& op = std::get<Attention>(program_.instructions[i].operation);
      const auto& write = *made_by<KvWrite>(op.written);
      take(i, fused, {op.q, write.k, write.v, op.written});
    }
    if (!found.empty())
      for (auto& kv : result.kv) kv.kv_heads = 1;
  }

  const Program& program_;
  std::vector<int> readers_, maker_;
};

}  // namespace

Program fuse_low_rank(const Program& program) { return Fuser(program).fuse(); }

}  // namespace cairn::program
