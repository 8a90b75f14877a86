#include "backends/cuda/work_space.h"

#include <algorithm>

#include "backends/cuda/matmul_e4m3.h"
#include "backends/cuda/matmul_many.h"
#include "backends/cuda/sample.h"
#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

using program::Program;
using program::Value;
using program::Weight;

constexpr int64_t kAlignment = 256;

uint64_t gated_bytes(const Program& program, const program::Bounds& bounds) {
  int64_t bytes = 0;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<program::GatedMatMul>(&instruction.operation))
      bytes = std::max(
          bytes,
          2 * round_up(bounds.of(program.info(op->y).shape.front()) * program.width(op->y) * 4, kAlignment));
  return uint64_t(bytes);
}

// Frequencies and slopes.
uint64_t constant_bytes(const Program& program) {
  int64_t floats = 0;
  for (const auto& rope : program.ropes) floats += rope.rotary_dim / 2 + 1;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<program::Attention>(&instruction.operation); op && op->alibi)
      floats += op->heads;
  return uint64_t(floats) * 4;
}

// Of the fast products.
void add_products(const Program& program, const WeightForms& weights, const program::Bounds& bounds,
                  const ExecutorOptions& options, const DeviceFacts* facts, WorkSpace& space) {
  const auto elements = element_types(program, options.exact);
  const auto roles = expert_roles(program, weights);
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const auto& operation = program.instructions[i].operation;
    const auto note = [&](Value x, Weight w, bool gated) {
      if (!weights.is_packed(w)) return;
      if (elements[size_t(x.id)] == Element::f32)
        space.converted = std::max(space.converted,
                                   uint64_t(bounds.of(program.info(x).shape.front()) * program.width(x) * 2));
      const DeviceMatrix& matrix = weights.packed(w);
      if (MatMulCall call{.w = &matrix}; facts && multiplies_e4m3(*facts, call))
        space.quantized = std::max(
            space.quantized, quantized_bytes(bounds.of(program.info(x).shape.front()), program.width(x)));
      const bool on_the_way = facts && matrix.pieces > 1 && can_multiply_packed(facts->capability, matrix);
      if (!on_the_way) space.unpacked_half = std::max(space.unpacked_half, matmul_many_half(matrix, gated));
    };
    if (const auto* op = std::get_if<program::MatMul>(&operation))
      for (const auto& p : op->products) note(op->x, p.weight, false);
    if (const auto* op = std::get_if<program::ExpertMatMul>(&operation))
      for (const auto& p : op->products) note(op->x, p.weight, roles[i].kind == ExpertRole::inputs);
    if (const auto* op = std::get_if<program::GatedMatMul>(&operation))
      note(op->x, op->gate, true), note(op->x, op->up, false);
    if (const auto* op = std::get_if<program::Logits>(&operation);
        op && weights.is_packed(op->weight) && options.is_wide(*weights.packed(op->weight).form))
      note(op->x, op->weight, false);
  }
}

}  // namespace

// Llama 8B on one H200, a step of 64 answers: in bf16 6.9 ms with the kernels of few rows, 5.9 with those of
// prompts, of 256: 27 and 12.1; below 48 it is the other way round. Weights that must be unpacked first pay
// for that with every step (64 answers in Q4_K_M: 11.2 and 12).
bool ExecutorOptions::is_wide(const Form& form) const {
  return sequences >= (form.layout == Layout::bf16_rows ? 48 : 96);
}

int64_t most_edits(const program::Bounds& bounds) {
  return std::clamp<int64_t>((int64_t{1} << 18) / bounds.logits, 64, 4096);
}

InputLayout::InputLayout(const Program& program, const program::Bounds& bounds, int64_t pages) {
  int64_t at = 0;
  const auto place = [&](int64_t count) {
    const int64_t begin = at;
    at += round_up(count, 64);
    return begin;
  };
  const int64_t drawn = program.logits ? bounds.logits : 0;
  edits = place(drawn * most_edits(bounds) * int64_t(sizeof(text::Edit) / 4));
  ids = place(bounds.tokens);
  from = place(bounds.tokens);
  positions = place(bounds.tokens);
  sequence_of = place(bounds.tokens);
  starts = place(bounds.tokens);
  lengths = place(bounds.tokens);
  logit_rows = place(bounds.logits);
  draws = place(drawn * int64_t(sizeof(RowDraw) / 4));
  for (const auto& rope : program.ropes)
    rope_frequencies.push_back(
        depends_on_length(rope.scaling) ? place(bounds.tokens * (rope.rotary_dim / 2 + 1)) : -1);
  // Sequences may share pages, so that all tables together can be longer than the pool.
  table_words = 4 * pages + bounds.tokens;
  tables = place(table_words);
  words = at;
}

AttentionKind kind_of(const program::Attention& op) {
  return {int(op.heads), op.scale, int(std::min<int64_t>(op.window, INT32_MAX)), op.softcap, bool(op.sinks),
          op.alibi,      op.causal};
}

std::vector<AttentionKind> attention_kinds(const Program& program) {
  std::vector<AttentionKind> kinds;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<program::Attention>(&instruction.operation))
      if (std::find(kinds.begin(), kinds.end(), kind_of(*op)) == kinds.end()) kinds.push_back(kind_of(*op));
  return kinds;
}

bool sees_ahead(const Program& program) {
  return std::any_of(program.instructions.begin(), program.instructions.end(), [](const auto& instruction) {
    const auto* op = std::get_if<program::Attention>(&instruction.operation);
    return op && !op->causal;
  });
}

AttentionLimits attention_limits(const Program& program, const kv::KvConfig& kv,
                                 const program::Bounds& bounds, const InputLayout& layout) {
  AttentionLimits limits;
  limits.rows = bounds.tokens;
  limits.decode_rows = sees_ahead(program) ? 0 : std::min(bounds.tokens, bounds.logits);
  limits.sequences = bounds.tokens;
  limits.table_pages = layout.table_words;
  limits.longest = kv.pages * kv.page_tokens;
  return limits;
}

int64_t rope_table_bytes(const program::RopeTable& rope, const program::Bounds& bounds) {
  return round_up(bounds.tokens * rope.rotary_dim * 4, kAlignment);
}

uint64_t WorkSpace::bytes() const {
  return values + gated + ropes + inputs + constants + hidden + drawn + experts.bytes() + 2 * unpacked_half +
         converted + quantized + attention;
}

WorkSpace work_space(const Program& program, const WeightForms& weights, const kv::KvConfig& kv,
                     const program::Bounds& bounds, const ExecutorOptions& options,
                     const DeviceFacts* facts) {
  WorkSpace space;
  const InputLayout layout(program, bounds, kv.pages);
  space.values = uint64_t(plan_arena(program, bounds).bytes);
  space.gated = gated_bytes(program, bounds);
  for (const auto& rope : program.ropes) space.ropes += uint64_t(rope_table_bytes(rope, bounds));
  space.inputs = uint64_t(layout.words) * 4;
  space.constants = constant_bytes(program);
  if (program.hidden && element_types(program, options.exact)[size_t(program.hidden.id)] != Element::f32)
    space.hidden = uint64_t(bounds.logits * program.width(program.hidden)) * 4;
  space.drawn = uint64_t(bounds.logits) * 4 + kClockBytes;
  if (options.exact) return space;
  space.experts = ExpertRoom::sizes(program, bounds);
  add_products(program, weights, bounds, options, facts, space);
  if (!facts || program.kv.empty()) return space;
  try {
    space.attention = AttentionEngine::workspace_bytes(*facts, kv, attention_kinds(program),
                                                       attention_limits(program, kv, bounds, layout));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::unsupported) throw;  // the plain kernels need none
  }
  return space;
}

}  // namespace cairn::cuda
