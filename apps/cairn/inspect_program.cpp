#include "inspect_program.h"

#include <fmt/format.h>

#include "program/fuse.h"
#include "terminal.h"

namespace cairn::app {

std::string cost_text(const models::Model& model, int64_t tokens, int64_t context) {
  const auto program = program::fuse(model.program);
  program::StepSizes sizes;
  sizes.tokens = tokens;
  sizes.context = context;
  std::string text = fmt::format(
      "work of one step: {} {} of one sequence after {} cached, f16 "
      "cache\n\n{:<44}{:>12}{:>12}{:>12}{:>10}{:>12}\n",
      tokens, tokens == 1 ? "token" : "tokens", context, "instruction", "weights", "values", "cache", "MFLOP",
      "FLOP/byte");
  const auto line = [](const std::string& name, const program::Work& work) {
    return fmt::format("{:<44}{:>12}{:>12}{:>12}{:>10.1f}{:>12.2f}\n", name,
                       readable_bytes(work.weight_bytes), readable_bytes(work.activation_bytes),
                       readable_bytes(work.kv_bytes), double(work.operations) / 1e6,
                       work.bytes() > 0 ? double(work.operations) / double(work.bytes()) : 0.0);
  };
  program::Work total;
  for (const auto& instruction : program.instructions) {
    const auto work = program::work(program, instruction, sizes);
    total += work;
    text += line(fmt::format("{} {}", name_of(instruction.operation), instruction.name), work);
  }
  return text + "\n" + line("all", total);
}

}  // namespace cairn::app
