#include "program/parts.h"

#include <algorithm>
#include <cassert>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"

namespace cairn::program {
namespace {

// The cache slot of an operation that has one.
int32_t* slot_of(Operation& operation) {
  if (auto* write = std::get_if<KvWrite>(&operation)) return &write->slot;
  if (auto* read = std::get_if<Attention>(&operation)) return &read->slot;
  return nullptr;
}

}  // namespace

Parts cut_by_lane(const Program& whole) {
  assert(whole.stages.empty());
  Parts result;
  std::map<Lane, int32_t> part_of_lane;
  for (const auto& instruction : whole.instructions) part_of_lane[instruction.lane];
  for (auto& [lane, index] : part_of_lane) {
    index = int32_t(result.parts.size());
    Part part{lane, whole, {}, {}};
    part.program.instructions.clear();
    part.program.kv.clear();
    part.program.logits = part.program.hidden = {};
    result.parts.push_back(std::move(part));
  }

  // Where each value is computed (its turn), and which parts read it.
  std::vector<int32_t> made_in(whole.values.size(), -1);
  std::vector<std::set<int32_t>> readers(whole.values.size());
  std::vector<std::map<int32_t, int32_t>> slots(result.parts.size());  // whole's -> part's
  std::vector<int32_t> slot_part(whole.kv.size(), -1);
  for (size_t i = 0; i < whole.instructions.size(); ++i) {
    Instruction instruction = whole.instructions[i];
    const int32_t index = part_of_lane[instruction.lane];
    Part& part = result.parts[size_t(index)];
    const auto at = int32_t(part.program.instructions.size());
    if (result.turns.empty() || result.turns.back().part != index) {
      result.turns.push_back({index, int32_t(part.program.stages.size())});
      part.program.stages.push_back({at, at, {}, {}});
    }
    part.program.stages.back().end = at + 1;
    const Uses used = uses(instruction.operation);
    for (Value v : used.in) readers[size_t(v.id)].insert(index);
    for (Value v : used.out) made_in[size_t(v.id)] = int32_t(result.turns.size()) - 1;
    if (int32_t* slot = slot_of(instruction.operation)) {
      int32_t& owner = slot_part[size_t(*slot)];
      // An encoder's layers share a slot, and each writes it before it reads it.
      const bool writes = std::holds_alternative<KvWrite>(instruction.operation);
      if (owner >= 0 && owner != index && !writes)
        fail(ErrorKind::invalid_argument,
             "{}: instruction {} reads cache slot {} on lane {}, but lane {} writes it", whole.model,
             instruction.name, *slot, instruction.lane, result.parts[size_t(owner)].lane);
      owner = index;
      const auto [known, fresh] = slots[size_t(index)].try_emplace(*slot, int32_t(part.slots.size()));
      if (fresh) {
        part.program.kv.push_back(whole.kv[size_t(*slot)]);
        part.slots.push_back(*slot);
      }
      *slot = known->second;
    }
    part.instructions.push_back(int32_t(i));
    part.program.instructions.push_back(std::move(instruction));
  }

  for (int32_t v = 0; v < int32_t(whole.values.size()); ++v) {
    const int32_t turn = made_in[size_t(v)];
    if (turn < 0) continue;  // an input of the step: every part has it
    const Turn from = result.turns[size_t(turn)];
    bool taken = false;
    for (const int32_t reader : readers[size_t(v)]) {
      if (reader == from.part) continue;
      taken = true;
      // The reader's next turn receives it, also when a later one is the first to use it.
      const auto next = std::find_if(result.turns.begin() + turn, result.turns.end(),
                                     [&](const Turn& t) { return t.part == reader; });
      assert(next != result.turns.end());
      result.parts[size_t(reader)].program.stages[size_t(next->stage)].in.push_back({v});
    }
    if (taken) result.parts[size_t(from.part)].program.stages[size_t(from.stage)].out.push_back({v});
  }
  for (Value Program::*const output : {&Program::logits, &Program::hidden})
    if (const Value v = whole.*output; v && made_in[size_t(v.id)] >= 0) {
      Program& owner = result.parts[size_t(result.turns[size_t(made_in[size_t(v.id)])].part)].program;
      owner.*output = v;
    }
  for (const auto& part : result.parts) check(part.program);
  return result;
}

}  // namespace cairn::program
