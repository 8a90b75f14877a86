#include "program/decode_groups.h"

#include <cassert>

#include "base/error.h"

namespace cairn::program {

Program decode_groups(const Program& program, std::span<const int32_t> group_of) {
  assert(group_of.size() == program.weights.size() && program.stages.empty());
  const auto group_read_by = [&](const Instruction& instruction) {
    int32_t read = -1;
    for (const Weight w : uses(instruction.operation).weights) {
      const int32_t group = w ? group_of[size_t(w.id)] : -1;
      if (read >= 0 && group >= 0 && group != read)
        fail(ErrorKind::unsupported, "{}: instruction {} reads weights of two groups", program.model,
             instruction.name);
      if (group >= 0) read = group;
    }
    return read;
  };
  Program result = program;
  result.instructions.clear();
  int32_t decoded = -1, place = 0;
  size_t last = 0;  // the DecodeGroup of `decoded`
  for (const auto& instruction : program.instructions) {
    const int32_t group = group_read_by(instruction);
    const bool lookup = std::holds_alternative<Embed>(instruction.operation);
    if (group >= 0 && group != decoded) {
      DecodeGroup decode{{}, place, lookup, 0};
      for (int32_t w = 0; w < int32_t(group_of.size()); ++w)
        if (group_of[size_t(w)] == group) {
          decode.weights.push_back({w});
          decode.bytes += program.weights[size_t(w)].bytes;
        }
      decoded = group, place = (place + 1) % kGroupPlaces, last = result.instructions.size();
      const std::string name = instruction.name.substr(0, instruction.name.rfind('.')) + ".decode";
      result.instructions.push_back({std::move(decode), name, instruction.layer, instruction.lane});
    } else if (group >= 0 && !lookup) {
      std::get<DecodeGroup>(result.instructions[last].operation).for_lookup = false;
    }
    result.instructions.push_back(instruction);
  }
  return result;
}

Program without_decode_groups(const Program& program) {
  Program result = program;
  std::erase_if(result.instructions,
                [](const Instruction& i) { return std::holds_alternative<DecodeGroup>(i.operation); });
  return result;
}

}  // namespace cairn::program
