// What each instruction launches.
#include <algorithm>
#include <cassert>

#include "backends/cuda/executor_step.h"
#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {

using program::Value;
using program::Weight;

void Executor::Step::execute(const program::Embed& op) {
  const auto& table = e_.weights_.table(op.table);
  const Address ids = op.ids ? at(op.ids).address : 0;
  if (table.data) {
    launch_.embed(ids, table.data, table.kind, at(op.y), rows(op.y), table.cols, op.scale, op.offset);
  } else if (table.blocks) {
    assert(e_.elements_[size_t(op.y.id)] == Element::f32);
    embed_packed(e_.kernels_, e_.stream_, *table.blocks, ids, at(op.y).address, rows(op.y), op.scale,
                 op.offset, launch_.overlap);
  } else {
    e_.stream_.upload(at(op.y).address, e_.embeddings_.data() + e_.decoded_at_[instruction_],
                      size_t(count(op.y)) * 4);
    after_copy_ = true;
  }
}

// The kernels of products read weights ahead: the next one may not begin before these are there.
void Executor::Step::execute(const program::DecodeGroup& op) {
  e_.weights_.decode(e_.kernels_, e_.stream_, op);
  after_copy_ = true;
}

void Executor::Step::execute(const program::GatherRows& op) {
  if (rows(op.y) > 0) launch_.gather_rows(at(op.x), at(op.rows).address, at(op.y), rows(op.y), width(op.x));
}

Operand Executor::Step::left_side(Value x, Weight weight) {
  Operand from = at(x);
  if (from.element == Element::bf16 || !e_.weights_.is_packed(weight)) return from;
  const Operand to{e_.converted_.address(), Element::bf16};
  if (converted_of_ == x || collected_) return to;
  launch_.convert(from, to, count(x));
  converted_of_ = x;
  return to;
}

MatMulCall Executor::Step::call(Operand x, Weight weight, Weight bias, Operand y, int64_t m) const {
  MatMulCall c;
  c.w = &e_.weights_.packed(weight);
  c.x = x.address;
  c.m = m;
  c.y = y.address;
  c.y_f32 = y.element == Element::f32;
  c.bias = e_.weights_.vector(bias);
  c.alone = e_.options_.is_alone(e_.bounds_);
  c.overlap_previous = launch_.overlap;
  return c;
}

void Executor::Step::multiply(std::span<const MatMulCall> calls, int64_t decode_rows) {
  // Runs of neighbours that are multiplied alike.
  for (size_t begin = 0, end = 0; begin < calls.size(); begin = end) {
    const bool wide = e_.options_.is_wide(*calls[begin].w->form);
    for (end = begin + 1; end < calls.size() && e_.options_.is_wide(*calls[end].w->form) == wide;) ++end;
    const auto part = calls.subspan(begin, end - begin);
    if (!collected_) {
      cuda::multiply(e_.kernels_, e_.stream_, part, wide ? 0 : decode_rows, e_.scratch_);
      continue;
    }
    for (auto& v :
         product_variants(e_.device_.facts(), part, decode_rows > 0, wide || decode_rows < calls.front().m))
      collected_->push_back(std::move(v));
  }
}

void Executor::Step::plain(Operand x, Weight weight, Weight bias, Operand y, int64_t m) {
  if (!collected_) launch_.matmul_plain(x, e_.weights_.plain(weight), e_.weights_.vector(bias), y, m);
}

void Executor::Step::execute(const program::MatMul& op) {
  Operand x = at(op.x);
  for (const auto& p : op.products) {
    if (e_.weights_.is_packed(p.weight))
      x = left_side(op.x, p.weight);
    else
      plain(at(op.x), p.weight, p.bias, at(p.y), rows(op.x));
  }
  std::vector<MatMulCall> calls;
  for (const auto& p : op.products)
    if (e_.weights_.is_packed(p.weight)) calls.push_back(call(x, p.weight, p.bias, at(p.y), rows(op.x)));
  if (!calls.empty()) multiply(calls, decode_rows_);
}

void Executor::Step::execute(const program::GatedMatMul& op) {
  if (e_.gated_together(op)) {
    MatMulCall c = call(left_side(op.x, op.gate), op.gate, {}, at(op.y), rows(op.x));
    c.up = &e_.weights_.packed(op.up);
    c.activation = op.activation;
    return multiply({&c, 1}, decode_rows_);
  }
  const Element element = e_.elements_[size_t(op.y.id)];
  const Operand gate{e_.gated_.address(), element};
  const Operand up{gate.address + Address(e_.space_.gated / 2), element};
  const program::MatMul both{op.x, {{op.gate, {}, {}}, {op.up, {}, {}}}};
  for (size_t i = 0; i < 2; ++i) {
    const Weight w = both.products[i].weight;
    const Operand y = i == 0 ? gate : up;
    if (e_.weights_.is_packed(w)) {
      const MatMulCall c = call(left_side(op.x, w), w, {}, y, rows(op.x));
      multiply({&c, 1}, decode_rows_);
    } else {
      plain(at(op.x), w, {}, y, rows(op.x));
    }
  }
  if (!collected_) launch_.gated(gate, up, op.activation, at(op.y), count(op.y));
}

// Scores are few rows, whoever asked for them: always class decode.
void Executor::Step::execute(const program::Logits& op) {
  if (rows(op.x) == 0) return;
  if (e_.weights_.is_packed(op.weight)) {
    MatMulCall c = call(left_side(op.x, op.weight), op.weight, op.bias, at(op.y), rows(op.x));
    c.scale = op.scale;
    c.softcap = op.softcap;
    return multiply({&c, 1}, c.m);
  }
  plain(at(op.x), op.weight, op.bias, at(op.y), rows(op.x));
  if (!collected_ && (op.scale != 1 || op.softcap != 0))
    launch_.soft_cap(at(op.y), op.scale, op.softcap, at(op.y), count(op.y));
}

void Executor::Step::execute(const program::Activate& op) {
  launch_.activate(at(op.x), op.activation, at(op.y), count(op.y));
}

void Executor::Step::execute(const program::GatedActivation& op) {
  // Experts' products have joined them for the rows of prompts.
  const bool joined = e_.expert_roles_[instruction_].kind == ExpertRole::gated;
  const int64_t elements = joined ? count(op.y) / sizes_.tokens * decode_rows_ : count(op.y);
  if (elements > 0) launch_.gated(at(op.gate), at(op.up), op.activation, at(op.y), elements);
}

void Executor::Step::execute(const program::Add& op) {
  launch_.add(at(op.a), at(op.b), op.b_scale, at(op.y), count(op.y));
}
void Executor::Step::execute(const program::Clamp& op) {
  launch_.clamp(at(op.x), op.limit, at(op.y), count(op.y));
}
void Executor::Step::execute(const program::SoftCap& op) {
  if (rows(op.x) > 0) launch_.soft_cap(at(op.x), op.scale, op.cap, at(op.y), count(op.y));
}

void Executor::Step::execute(const program::GateRows& op) {
  launch_.gate_rows(at(op.x), at(op.gate), at(op.y), rows(op.x), width(op.x));
}

void Executor::Step::execute(const program::RmsNorm& op) {
  const int64_t group = op.group != 0 ? op.group : width(op.x);
  launch_.rms_norm(at(op.x), e_.weights_.vector(op.weight), at(op.y), count(op.x) / group, group, op.eps,
                   op.offset);
}

void Executor::Step::execute(const program::LayerNorm& op) {
  launch_.layer_norm(at(op.x), e_.weights_.vector(op.weight), e_.weights_.vector(op.bias), at(op.y),
                     rows(op.x), width(op.x), op.eps);
}

void Executor::Step::execute(const program::AddRmsNorm& op) {
  launch_.add_rms_norm(at(op.a), at(op.b), at(op.sum), e_.weights_.vector(op.weight), at(op.y), rows(op.a),
                       width(op.a), op.eps, op.offset);
}

void Executor::Step::execute(const program::Rope& op) {
  if (e_.fused_ropes_[instruction_].skip) return;
  launch_.rope(at(op.x), rope_tables_[size_t(op.table)], at(op.y), rows(op.x), op.heads, op.head_dim,
               op.rotary_dim, op.pairing);
}

PlainCache Executor::Step::cache(int32_t slot) const {
  const auto& c = e_.kv_.config();
  const DeviceKv kv = device_kv();
  return {kv.layer(kv::Part::K, slot),
          kv.layer(kv::Part::V, slot),
          plain_cache_element(c),
          c.kv_heads,
          c.head_dim_k,
          c.head_dim_v,
          c.page_tokens};
}

void Executor::Step::execute(const program::KvWrite& op) {
  const InputLayout& in = e_.layout_;
  if (!e_.attention_) {
    launch_.append_plain(at(op.k), at(op.v), cache(op.slot), input(in.tables), input(in.starts),
                         input(in.sequence_of), input(in.positions), rows(op.k));
    return;
  }
  AppendCall c;
  c.layer = op.slot;
  c.rows = rows(op.k);
  c.k = at(op.k).address, c.k_stride = width(op.k);
  c.v = at(op.v).address, c.v_stride = width(op.v);
  if (const FusedRope& fused = e_.fused_ropes_[instruction_]; fused.q) {
    c.rope = {int(fused.q->rotary_dim), fused.q->pairing};
    c.k = at(fused.k->x).address;
    c.q = at(fused.q->x).address, c.q_stride = width(fused.q->x);
    c.q_out = at(fused.q->y).address, c.q_out_stride = width(fused.q->y);
    c.angles = rope_tables_[size_t(fused.q->table)];
    c.heads = int(fused.q->heads);
  }
  c.overlap_previous = launch_.overlap;
  e_.attention_->append(e_.stream_, device_kv(), c);
}

void Executor::Step::execute(const program::Attention& op) {
  const InputLayout& in = e_.layout_;
  if (!e_.attention_) {
    PlainAttention a;
    a.heads = int(op.heads);
    a.scale = op.scale;
    a.softcap = op.softcap;
    a.window = int(std::min<int64_t>(op.window, INT32_MAX));
    a.causal = op.causal;
    a.sinks = e_.weights_.vector(op.sinks);
    a.slopes = e_.slopes_[instruction_];
    launch_.attention_plain(at(op.q), at(op.y), cache(op.slot), a, input(in.tables), input(in.starts),
                            input(in.lengths), input(in.sequence_of), input(in.positions), rows(op.q));
    return;
  }
  AttentionCall c;
  c.kind = e_.attention_kinds_[instruction_];
  c.layer = op.slot;
  c.q = at(op.q).address, c.q_stride = width(op.q);
  c.y = at(op.y).address, c.y_stride = width(op.y);
  c.sinks = e_.weights_.vector(op.sinks);
  c.slopes = e_.slopes_[instruction_];
  c.decode = decode_rows_ > 0, c.prompt = decode_rows_ < sizes_.tokens;
  c.decode_rows = decode_rows_;
  c.merge = e_.attention_->has_chunks(), c.shared = e_.attention_->has_shared();
  c.overlap_previous = launch_.overlap;
  e_.attention_->run(e_.stream_, device_kv(), c);
}

void Executor::Step::execute(const program::Route& op) {
  launch_.route(at(op.scores), width(op.scores), width(op.chosen),
                op.routing == program::Routing::softmax_topk_renorm, at(op.chosen).address,
                at(op.weights).address, rows(op.scores));
}

void Executor::Step::execute(const program::ExpertMatMul& op) {
  const int64_t top_k = width(op.chosen), tokens = rows(op.chosen), pairs = tokens * top_k;
  if (std::all_of(op.products.begin(), op.products.end(),
                  [&](const auto& p) { return e_.weights_.is_packed(p.weight); })) {
    const Operand x = left_side(op.x, op.products.front().weight);
    const ExpertRole& role = e_.expert_roles_[instruction_];
    std::vector<MatMulCall> calls;
    for (const auto& p : op.products) calls.push_back(call(x, p.weight, p.bias, at(p.y), pairs));
    if (collected_) {
      for (auto& v : expert_variants(e_.device_.facts(), calls, role)) collected_->push_back(std::move(v));
      return;
    }
    const ExpertChoice choice{at(op.chosen).address, top_k, op.per_choice};
    multiply_experts(e_.kernels_, e_.stream_, calls, choice, tokens, decode_rows_, role, e_.expert_room_,
                     e_.scratch_);
    return;
  }
  if (collected_) return;
  for (const auto& p : op.products)
    launch_.matmul_plain(at(op.x), e_.weights_.plain(p.weight), e_.weights_.vector(p.bias), at(p.y), pairs,
                         at(op.chosen).address, op.per_choice ? 1 : top_k);
}

void Executor::Step::execute(const program::ExpertCombine& op) {
  launch_.expert_combine(at(op.x), at(op.weights).address, at(op.y), rows(op.y), width(op.x),
                         width(op.weights));
}

}  // namespace cairn::cuda
