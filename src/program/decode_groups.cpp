#include "program/decode_groups.h"

#include <algorithm>
#include <cassert>
#include <set>

#include "base/error.h"
#include "program/weight_roles.h"

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
      DecodeGroup decode{{}, place, lookup, false, 0};
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

Program keep_on_host(const Program& program, int64_t layers) {
  std::vector<int32_t> group_of(program.weights.size(), -1);
  std::set<int32_t> decoded;  // layers that have a DecodeGroup
  Program result = program;
  for (auto& instruction : result.instructions)
    if (auto* group = std::get_if<DecodeGroup>(&instruction.operation)) {
      if (instruction.layer >= 0 && instruction.layer < layers) group->on_host = true;
      decoded.insert(instruction.layer);
    }
  const auto roles = weight_roles(program);
  for (const auto& instruction : program.instructions) {
    if (instruction.layer < 0 || instruction.layer >= layers || decoded.contains(instruction.layer)) continue;
    for (const Weight w : uses(instruction.operation).weights)
      if (w && roles[size_t(w.id)].matrix && !roles[size_t(w.id)].table)
        group_of[size_t(w.id)] = instruction.layer;
  }
  if (std::all_of(group_of.begin(), group_of.end(), [](int32_t g) { return g < 0; })) return result;
  if (!decoded.empty())
    fail(ErrorKind::unsupported,
         "{}: some layers are stored as groups and others not; keep fewer on the host", program.model);
  result = decode_groups(result, group_of);
  for (auto& instruction : result.instructions)
    if (auto* group = std::get_if<DecodeGroup>(&instruction.operation)) group->on_host = true;
  return result;
}

Program without_decode_groups(const Program& program) {
  Program result = program;
  std::erase_if(result.instructions,
                [](const Instruction& i) { return std::holds_alternative<DecodeGroup>(i.operation); });
  return result;
}

}  // namespace cairn::program
