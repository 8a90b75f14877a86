#include "backends/cuda/element_types.h"

#include <type_traits>

namespace cairn::cuda {
namespace {

using program::Value;

struct Marks {
  std::vector<Element> of;
  void f32(Value v) {
    if (v) of[size_t(v.id)] = Element::f32;
  }
};

// Only instructions with values that must be f32 have an overload; the fallback is for the others.
template <typename Op>
void mark(const Op& op, Marks& m) {
  if constexpr (std::is_same_v<Op, program::Embed>) {
    m.f32(op.y);
  } else if constexpr (std::is_same_v<Op, program::Add>) {
    m.f32(op.a), m.f32(op.b), m.f32(op.y);
  } else if constexpr (std::is_same_v<Op, program::AddRmsNorm>) {
    m.f32(op.a), m.f32(op.b), m.f32(op.sum);
  } else if constexpr (std::is_same_v<Op, program::Logits>) {
    m.f32(op.y);
  } else if constexpr (std::is_same_v<Op, program::Route>) {
    m.f32(op.scores), m.f32(op.weights);
  } else if constexpr (std::is_same_v<Op, program::ExpertCombine>) {
    m.f32(op.weights);
  } else if constexpr (std::is_same_v<Op, program::GateRows>) {
    m.f32(op.gate);
  }
}

}  // namespace

std::vector<Element> element_types(const program::Program& program, bool exact) {
  Marks marks{std::vector<Element>(program.values.size(), exact ? Element::f32 : Element::bf16)};
  for (const auto& instruction : program.instructions)
    std::visit([&](const auto& op) { mark(op, marks); }, instruction.operation);
  marks.f32(program.logits);
  if (!program.logits) marks.f32(program.hidden);  // an encoder's result
  for (const auto& stage : program.stages)         // other parts may run on processors without bf16
    for (const auto* values : {&stage.in, &stage.out})
      for (const Value v : *values) marks.f32(v);
  for (const Value v : {program.ids, program.positions, program.logit_rows}) marks.f32(v);
  for (size_t i = 0; i < program.values.size(); ++i)  // 32-bit integers take the same room
    if (program.values[i].dtype != tensor::DType::f32) marks.of[i] = Element::f32;
  return std::move(marks.of);
}

}  // namespace cairn::cuda
