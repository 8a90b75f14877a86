#include <cassert>
#include <utility>

#include "text/constrain/syntax.h"

namespace cairn::text::constrain {

namespace {

// Thompson's construction with all repeats copied out.
class Copier {
 public:
  Copier(const Syntax& syntax, size_t max_states) : syntax_(syntax), max_states_(max_states) {
    machine.add();
    machine.states[size_t(machine.add())].final = true;
  }

  bool build(NodeId id, int32_t from, int32_t to) {
    if (machine.states.size() > max_states_) return false;
    const auto& node = syntax_.node(id);
    switch (node.kind) {
      case Syntax::Kind::never: return true;
      case Syntax::Kind::empty: step(from, to); return true;
      case Syntax::Kind::text: machine.add_text(node.text, from, to); return true;
      case Syntax::Kind::characters: machine.add_characters(node.set, from, to); return true;
      case Syntax::Kind::sequence:
        for (size_t i = 0; i < node.children.size(); ++i) {
          const int32_t next = i + 1 == node.children.size() ? to : machine.add();
          if (!build(node.children[i], from, next)) return false;
          from = next;
        }
        return true;
      case Syntax::Kind::choice:
        for (const NodeId child : node.children)
          if (!build(child, from, to)) return false;
        return true;
      case Syntax::Kind::repeat: {
        for (uint32_t i = 0; i < node.minimum; ++i) {
          const int32_t next = machine.add();
          if (!build(node.children[0], from, next)) return false;
          from = next;
        }
        if (node.maximum == kUnbounded) {
          const int32_t around = machine.add();
          step(from, around);
          step(around, to);
          return build(node.children[0], around, around);
        }
        step(from, to);
        for (uint32_t i = node.minimum; i < node.maximum; ++i) {
          const int32_t next = machine.add();
          if (!build(node.children[0], from, next)) return false;
          step(next, to);
          from = next;
        }
        return true;
      }
      case Syntax::Kind::machine: {
        const int32_t first = int32_t(machine.states.size());
        for (const auto& state : node.machine->states) {
          Machine::State copy = state;
          for (auto& edge : copy.bytes) edge.to += first;
          for (auto& edge : copy.empty) edge += first;
          if (std::exchange(copy.final, false)) copy.empty.push_back(to);
          machine.states.push_back(std::move(copy));
        }
        step(from, first);
        return true;
      }
      case Syntax::Kind::call:
      case Syntax::Kind::token: assert(!"a node that calls nothing"); return false;
    }
    return false;
  }

  Machine machine;

 private:
  void step(int32_t from, int32_t to) { machine.states[size_t(from)].empty.push_back(to); }
  const Syntax& syntax_;
  size_t max_states_;
};

}  // namespace

std::optional<Machine> machine_of(const Syntax& syntax, NodeId node, size_t max_states) {
  Copier copier(syntax, 4 * max_states);
  if (!copier.build(node, 0, 1)) return std::nullopt;
  auto machine = determinise(copier.machine, max_states);
  if (machine) trim(*machine);
  return machine;
}

}  // namespace cairn::text::constrain
