#include "text/constrain/syntax.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace cairn::text::constrain {

namespace {

// About 100 bytes each while compiling: enough for schemas of a megabyte, and gone in a second.
constexpr size_t kMostParts = 1'000'000;

}  // namespace

Syntax::Syntax() {
  add({.kind = Kind::empty, .nullable = true});
  add({.kind = Kind::never});
}

void Syntax::charge(size_t parts) {
  charged_ += parts;
  if (charged_ > kMostParts)
    fail(ErrorKind::invalid_argument, "the grammar is too large: it takes more than {} parts", kMostParts);
}

NodeId Syntax::add(Node node) {
  charge(1 + node.children.size() + node.text.size() / 8 + node.set.ranges().size() / 8);
  nodes_.push_back(std::move(node));
  return NodeId(nodes_.size()) - 1;
}

NodeId Syntax::text(std::string_view text) {
  if (text.empty()) return empty();
  return add({.kind = Kind::text, .text = std::string(text)});
}

NodeId Syntax::characters(CodePoints set) {
  if (set.empty()) return never();
  return add({.kind = Kind::characters, .set = std::move(set)});
}

NodeId Syntax::sequence(std::vector<NodeId> children) {
  std::vector<NodeId> flat;
  for (const NodeId child : children) {
    if (child == never()) return never();
    const Node& part = node(child);
    if (part.kind == Kind::sequence)
      flat.insert(flat.end(), part.children.begin(), part.children.end());
    else if (child != empty())
      flat.push_back(child);
  }
  std::vector<NodeId> joined;  // neighbouring texts are one
  for (const NodeId child : flat) {
    if (!joined.empty() && node(child).kind == Kind::text && node(joined.back()).kind == Kind::text)
      joined.back() = text(node(joined.back()).text + node(child).text);
    else
      joined.push_back(child);
  }
  if (joined.empty()) return empty();
  if (joined.size() == 1) return joined[0];
  bool nullable = true;
  for (const NodeId child : joined) nullable &= node(child).nullable;
  return add({.kind = Kind::sequence, .nullable = nullable, .children = std::move(joined)});
}

NodeId Syntax::choice(std::vector<NodeId> children) {
  std::vector<NodeId> flat;
  CodePoints set;
  for (const NodeId child : children) {
    const Node& part = node(child);
    if (part.kind == Kind::choice)
      flat.insert(flat.end(), part.children.begin(), part.children.end());
    else if (part.kind == Kind::characters)
      set.add(part.set);
    else if (child != never())
      flat.push_back(child);
  }
  if (!set.empty()) flat.push_back(characters(std::move(set)));
  std::sort(flat.begin(), flat.end());
  flat.erase(std::unique(flat.begin(), flat.end()), flat.end());
  if (flat.empty()) return never();
  if (flat.size() == 1) return flat[0];
  bool nullable = false;
  for (const NodeId child : flat) nullable |= node(child).nullable;
  return add({.kind = Kind::choice, .nullable = nullable, .children = std::move(flat)});
}

NodeId Syntax::repeat(NodeId child, uint32_t minimum, uint32_t maximum) {
  if (maximum == 0 || child == empty()) return empty();
  if (child == never()) return minimum == 0 ? empty() : never();
  if (minimum > maximum) return never();
  if (minimum == 1 && maximum == 1) return child;
  if (minimum == 0 && maximum == 1) return choice({child, empty()});
  return add({.kind = Kind::repeat,
              .nullable = minimum == 0 || node(child).nullable,
              .minimum = minimum,
              .maximum = maximum,
              .children = {child}});
}

NodeId Syntax::call(RuleId rule) { return add({.kind = Kind::call, .what = rule}); }

NodeId Syntax::token(int32_t id) { return add({.kind = Kind::token, .what = id}); }

NodeId Syntax::machine(Machine machine) {
  if (is_empty(machine)) return never();
  charge(machine.states.size());
  const bool nullable = machine.states[0].final;
  return add({.kind = Kind::machine,
              .nullable = nullable,
              .machine = std::make_shared<const Machine>(std::move(machine))});
}

RuleId Syntax::rule(std::string name, bool shared) {
  charge(1);
  rules_.push_back({.name = std::move(name), .shared = shared});
  return RuleId(rules_.size()) - 1;
}

void Syntax::define(RuleId rule, NodeId body) { rules_[size_t(rule)].body = body; }

namespace {

constexpr uint32_t kNotAtAll = 0xffffffff, kMachine = 0xfffffffe;

// Whether an end is reached; calls only of rules that hold.
bool reaches_end(const Machine& machine, const std::vector<char>& rule_holds) {
  std::vector<char> seen(machine.states.size(), false);
  std::vector<int32_t> todo = {0};
  seen[0] = true;
  const auto visit = [&](int32_t s) {
    if (seen[size_t(s)]) return;
    seen[size_t(s)] = true;
    todo.push_back(s);
  };
  while (!todo.empty()) {
    const auto& state = machine.states[size_t(todo.back())];
    todo.pop_back();
    if (state.final) return true;
    for (const auto& edge : state.bytes) visit(edge.to);
    for (const int32_t to : state.empty) visit(to);
    for (const auto& jump : state.jumps)
      if (jump.kind != Machine::Kind::call || rule_holds[size_t(jump.what)]) visit(jump.to);
  }
  return false;
}

}  // namespace

// Every property here holds for a node when enough of its parts have it. missing: how many parts of each node
// still have to; 0 where it holds from the start.
//
// A machine holds kMachine: it waits for an end that is reached through calls of rules that hold.
std::vector<char> Syntax::propagate(std::vector<uint32_t> missing) {
  std::vector<std::vector<NodeId>> part_of(nodes_.size()), called_by(rules_.size());
  std::vector<std::vector<RuleId>> body_of(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (const NodeId child : nodes_[i].children) part_of[size_t(child)].push_back(NodeId(i));
    if (nodes_[i].kind == Kind::call) called_by[size_t(nodes_[i].what)].push_back(NodeId(i));
    if (nodes_[i].kind != Kind::machine) continue;
    for (const auto& state : nodes_[i].machine->states)
      for (const auto& jump : state.jumps)
        if (jump.kind == Machine::Kind::call) called_by[size_t(jump.what)].push_back(NodeId(i));
  }
  for (size_t r = 0; r < rules_.size(); ++r)
    if (rules_[r].body >= 0) body_of[size_t(rules_[r].body)].push_back(RuleId(r));
  std::vector<char> holds(nodes_.size(), false), rule_holds(rules_.size(), false);
  std::vector<NodeId> todo, machines;  // machines: to be looked at again, when nothing else is left
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (missing[i] == 0) todo.push_back(NodeId(i));
    if (missing[i] == kMachine) machines.push_back(NodeId(i));
  }
  while (!todo.empty() || !machines.empty()) {
    if (todo.empty()) {
      std::sort(machines.begin(), machines.end());
      machines.erase(std::unique(machines.begin(), machines.end()), machines.end());
      for (const NodeId id : machines)
        if (!holds[size_t(id)] && reaches_end(*nodes_[size_t(id)].machine, rule_holds)) todo.push_back(id);
      machines.clear();
      continue;
    }
    const NodeId id = todo.back();
    todo.pop_back();
    if (holds[size_t(id)]) continue;
    holds[size_t(id)] = true;
    const auto one_less = [&](NodeId user) {
      auto& left = missing[size_t(user)];
      if (left == kMachine)
        machines.push_back(user);
      else if (left != 0 && left != kNotAtAll && --left == 0)
        todo.push_back(user);
    };
    for (const NodeId user : part_of[size_t(id)]) one_less(user);
    for (const RuleId rule : body_of[size_t(id)]) {
      rule_holds[size_t(rule)] = true;
      for (const NodeId user : called_by[size_t(rule)]) one_less(user);
    }
  }
  return holds;
}

void Syntax::complete() {
  std::vector<uint32_t> empty_missing(nodes_.size()), end_missing(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& n = nodes_[i];
    uint32_t& to_be_empty = empty_missing[i];
    uint32_t& to_end = end_missing[i];
    switch (n.kind) {
      case Kind::never: to_be_empty = to_end = kNotAtAll; break;
      case Kind::empty: break;
      case Kind::sequence: to_be_empty = to_end = uint32_t(n.children.size()); break;
      case Kind::choice:
      case Kind::call: to_be_empty = to_end = 1; break;
      case Kind::repeat: to_be_empty = to_end = n.minimum == 0 ? 0 : 1; break;
      case Kind::machine:
        to_be_empty = n.machine->states[0].final ? 0 : kNotAtAll;
        to_end = kMachine;
        break;
      default: to_be_empty = kNotAtAll; break;
    }
  }
  const auto nullable = propagate(std::move(empty_missing));
  const auto productive = propagate(std::move(end_missing));
  for (Rule& rule : rules_) {
    rule.nullable = rule.body >= 0 && nullable[size_t(rule.body)];
    rule.productive = rule.body >= 0 && productive[size_t(rule.body)];
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    Node& n = nodes_[i];
    n.nullable = nullable[i];
    if (!productive[i]) {
      n = Node{.kind = Kind::never};
    } else if (n.kind == Kind::choice) {
      std::erase_if(n.children, [&](NodeId c) { return !productive[size_t(c)]; });
    } else if (n.kind == Kind::repeat && !productive[size_t(n.children[0])]) {
      n = Node{.kind = Kind::empty, .nullable = true};
    } else if (n.kind == Kind::machine) {
      const auto unproductive = [&](const Machine::Jump& jump) {
        return jump.kind == Machine::Kind::call && !rules_[size_t(jump.what)].productive;
      };
      const auto& states = n.machine->states;
      if (std::none_of(states.begin(), states.end(), [&](const Machine::State& state) {
            return std::any_of(state.jumps.begin(), state.jumps.end(), unproductive);
          }))
        continue;
      Machine rest = *n.machine;
      for (auto& state : rest.states) std::erase_if(state.jumps, unproductive);
      trim(rest);
      n.machine = std::make_shared<const Machine>(std::move(rest));
    }
  }
}

}  // namespace cairn::text::constrain
