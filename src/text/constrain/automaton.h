// A grammar compiled to a pushdown automaton over bytes: one small machine per rule, flattened. What a parse
// of it looks like is parse_states.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/constrain/machine.h"
#include "text/constrain/syntax.h"

namespace cairn::text::constrain {

struct Automaton {
  struct Bytes {
    uint8_t low, high;
    uint32_t to;
    bool operator==(const Bytes&) const = default;
  };
  struct Jump {
    Machine::Kind kind;
    int32_t what;
    uint32_t to;
    bool operator==(const Jump&) const = default;
  };
  struct State {
    uint32_t bytes, bytes_end;  // ascending when the machine is determinised
    uint32_t jumps, jumps_end;
    uint32_t rule;
    int32_t loop;
    bool final;     // the rule may end here
    bool head;      // of its loop: nothing but `leave` is open once the loop has been read as often as may be
    bool only_end;  // nothing follows in this rule: a call that returns here is a jump
    bool plain;     // bytes are all there is
    bool special;   // has jumps over special tokens
  };
  struct Loop {
    uint32_t minimum, maximum;
  };
  struct Rule {
    uint32_t first_state, states, start;
    uint32_t rank;  // callers at the same place come before what they call
    bool leaf;      // calls nothing
  };

  std::vector<State> states;
  std::vector<Bytes> bytes;
  std::vector<Jump> jumps;
  std::vector<Loop> loops;
  std::vector<Rule> rules;
  uint32_t start = 0;  // state of a rule that calls the root and ends

  std::span<const Bytes> bytes_of(const State& s) const {
    return {bytes.data() + s.bytes, s.bytes_end - s.bytes};
  }
  std::span<const Jump> jumps_of(const State& s) const {
    return {jumps.data() + s.jumps, s.jumps_end - s.jumps};
  }
  size_t size_bytes() const;
};

// Throws Error(invalid_argument) when nothing can match, when rules call themselves at their start in a way
// that is not resolved here, or when the grammar is too large.
Automaton compile(Syntax&&);

struct RuleMachine {
  Machine machine;
  int32_t start = 0;
  std::string name;
};
// Rewrites rules that begin with themselves ("sum: sum '+' product"), directly or through each other, so that
// none does, and returns an order in which callers come before what they call at their start. machines: by
// rule. Throws Error(unsupported) where it cannot.
std::vector<int32_t> remove_left_recursion(std::vector<RuleMachine>&, const std::vector<Automaton::Loop>&);

}  // namespace cairn::text::constrain
