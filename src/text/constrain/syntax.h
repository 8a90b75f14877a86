// What may be written, as a grammar: rules over characters, texts and special tokens. Every notation (JSON
// Schema, regex, GBNF, Lark, tags) is translated to this; automaton.h compiles it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/constrain/code_points.h"
#include "text/constrain/machine.h"

namespace cairn::text::constrain {

using NodeId = int32_t;
using RuleId = int32_t;

inline constexpr uint32_t kUnbounded = 0xffffffff;

class Syntax {
 public:
  enum class Kind : uint8_t {
    empty,
    never,
    text,
    characters,
    sequence,
    choice,
    repeat,
    call,
    token,
    machine
  };
  struct Node {
    Kind kind;
    bool nullable = false;  // settled by complete() where rules are called
    uint32_t minimum = 0, maximum = 0;
    int32_t what = 0;                   // of a call: the rule; of a token: its id
    std::vector<NodeId> children = {};  // of a repeat: the one
    std::string text = {};
    CodePoints set = {};
    MachinePtr machine = {};
  };
  struct Rule {
    std::string name;
    NodeId body = -1;
    bool shared = false;    // stays a rule, so that all its uses share their masks
    bool nullable = false;  // may stand for nothing; settled by complete()
    bool productive = false;
  };

  Syntax();

  NodeId empty() const { return 0; }
  NodeId never() const { return 1; }  // matches nothing at all
  NodeId text(std::string_view);
  NodeId characters(CodePoints);
  NodeId sequence(std::vector<NodeId>);
  NodeId choice(std::vector<NodeId>);
  NodeId repeat(NodeId, uint32_t minimum, uint32_t maximum);
  NodeId optional(NodeId node) { return choice({node, empty()}); }
  NodeId call(RuleId);
  NodeId token(int32_t id);
  NodeId machine(Machine);  // may be empty only if its start is an end

  RuleId rule(std::string name, bool shared = false);
  void define(RuleId, NodeId body);

  // After the last rule: finds which rules may be empty, and turns what can never be completed into never().
  void complete();

  const Node& node(NodeId id) const { return nodes_[size_t(id)]; }
  const Rule& rule_at(RuleId id) const { return rules_[size_t(id)]; }
  size_t rules() const { return rules_.size(); }
  RuleId root = -1;

  // Counts against what one grammar may take; throws Error(invalid_argument).
  void charge(size_t parts);

 private:
  NodeId add(Node);
  std::vector<char> propagate(std::vector<uint32_t> missing);
  std::vector<Node> nodes_;
  std::vector<Rule> rules_;
  size_t charged_ = 0;
};

// A determinised machine of a node that calls nothing. nullopt: more than max_states.
std::optional<Machine> machine_of(const Syntax&, NodeId, size_t max_states);

}  // namespace cairn::text::constrain
