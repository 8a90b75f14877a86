#include <fmt/format.h>

#include "program/program.h"

namespace cairn::program {
namespace {

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    const auto& extent = shape[i];
    const char* symbol = extent.symbol == Symbol::tokens ? "tokens" : "logits";
    if (extent.symbol == Symbol::none) {
      text += fmt::format("{}", extent.size);
    } else if (extent.size == 1) {
      text += symbol;
    } else {
      text += fmt::format("{}*{}", extent.size, symbol);
    }
  }
  return text + "]";
}

std::string weight_text(const WeightInfo& info) {
  std::string text = info.name;
  if (info.stored_rows != 0)
    text += fmt::format("[{}:{}]", info.first_row, info.first_row + info.shape.front());
  if (info.transposed) text += "^T";
  return text;
}

struct Printer {
  const Program& program;
  std::string outputs, inputs, fields;

  void in(std::string_view, Value v) {
    if (program.info(v).dtype == DType::token) return;
    inputs += fmt::format("{}%{}", inputs.empty() ? "" : ", ", v.id);
  }
  void out(std::string_view, Value v) {
    const auto& info = program.info(v);
    if (info.dtype == DType::token) return;
    outputs += fmt::format("{}%{}{}{}", outputs.empty() ? "" : ", ", v.id, shape_text(info.shape),
                           info.dtype == DType::f32 ? "" : fmt::format(":{}", tensor::to_string(info.dtype)));
  }
  void weight(std::string_view name, Weight w) {
    inputs += fmt::format("{}{}={}", inputs.empty() ? "" : ", ", name, weight_text(program.info(w)));
  }
  template <typename T>
  void field(std::string_view name, const T& value) {
    fields += fmt::format(" {}={}", name, value);
  }
};

}  // namespace

std::string print(const Program& program, const Instruction& instruction) {
  Printer printer{program, {}, {}, {}};
  std::visit([&](const auto& op) { op.describe(printer); }, instruction.operation);
  if (!printer.outputs.empty()) printer.outputs += " = ";
  std::string text = fmt::format("{}{}({}){}", printer.outputs, name_of(instruction.operation),
                                 printer.inputs, printer.fields);
  if (instruction.lane != 0) text += fmt::format(" @lane{}", instruction.lane);
  return text;
}

std::string print(const Program& program) {
  std::string text = fmt::format("program {}: {} instructions, {} weights, {} cache slots\n", program.model,
                                 program.instructions.size(), program.weights.size(), program.kv.size());
  text += fmt::format("inputs %{} ids, %{} positions, %{} logit_rows\n", program.ids.id, program.positions.id,
                      program.logit_rows.id);
  int32_t layer = -1;
  for (const auto& instruction : program.instructions) {
    if (instruction.layer != layer) {
      layer = instruction.layer;
      text += layer < 0 ? "\n" : fmt::format("\nlayer {}\n", layer);
    }
    text += "  " + print(program, instruction) + "\n";
  }
  text += program.logits
              ? fmt::format("\noutputs %{} logits, %{} hidden\n", program.logits.id, program.hidden.id)
              : fmt::format("\noutputs %{} hidden\n", program.hidden.id);
  return text;
}

}  // namespace cairn::program
