// Finite automata over bytes, with the jumps that make a grammar of many of them: the form that every
// notation is brought to, and the set operations that schemas need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "text/constrain/code_points.h"

namespace cairn::text::constrain {

struct Machine {
  struct Bytes {
    uint8_t low, high;  // both included
    int32_t to;
  };
  enum class Kind : uint8_t {
    call,   // a rule, by its number: to is where it returns; never stands for nothing (see Syntax::nullable)
    token,  // a special token, by its id, or kOtherSpecial
    enter,  // a counted loop, by its number: to is its head, with the count 0
    again,  // the loop's body has been read once more: to is the head
    leave,  // from the head, when enough were read
    nothing,  // an empty step; only in an Automaton, where it is one list with the others
  };
  struct Jump {
    Kind kind;
    int32_t what;
    int32_t to;
    bool operator==(const Jump&) const = default;
    auto operator<=>(const Jump&) const = default;
  };
  struct State {
    std::vector<Bytes> bytes;
    std::vector<Jump> jumps;
    std::vector<int32_t> empty;  // may be taken for nothing
    int32_t loop = -1;           // the counted loop that this state lies in
    bool final = false;
  };
  static constexpr int32_t kOtherSpecial = -1;  // any special token that no jump of this state names

  std::vector<State> states;  // [0]: the start

  int32_t add(int32_t loop = -1) {
    states.emplace_back().loop = loop;
    return int32_t(states.size()) - 1;
  }
  // A path from one state to another for every character of the set; what the paths have in common at their
  // ends is one state.
  void add_characters(const CodePoints&, int32_t from, int32_t to);
  void add_text(std::string_view, int32_t from, int32_t to);
};
using MachinePtr = std::shared_ptr<const Machine>;

// The same language with at most one way to read any byte; jumps count as letters. nullopt: it would need
// more than max_states.
std::optional<Machine> determinise(const Machine&, size_t max_states);

// Of determinised machines without jumps. Only states from which an end is reached stay (the start always
// does). nullopt: more than max_states.
std::optional<Machine> intersect(const Machine&, const Machine&, size_t max_states);
std::optional<Machine> subtract(const Machine&, const Machine&, size_t max_states);
bool is_empty(const Machine&);  // no text at all; of a trimmed machine
bool matches(const Machine&, std::string_view);

void trim(Machine&);  // drops the states that no end follows

}  // namespace cairn::text::constrain
