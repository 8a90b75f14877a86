// Left recursion, taken out of machines rather than of productions: a rule A whose start can call A and go on
// at t reads B t... instead, B being what A reads otherwise. So the call goes, and every end of A leads to t
// as well. Rules that begin with each other are first written out into one another (Paull's algorithm).
#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/constrain/automaton.h"

namespace cairn::text::constrain {

namespace {

// What is reached from the start before anything is read. loops: also through counted loops.
std::vector<int32_t> start_states(const RuleMachine& rule, const std::vector<Automaton::Loop>* loops) {
  std::vector<int32_t> reached;
  if (rule.machine.states.empty()) return reached;
  std::vector<bool> seen(rule.machine.states.size(), false);
  const auto visit = [&](int32_t s) {
    if (!seen[size_t(s)]) {
      seen[size_t(s)] = true;
      reached.push_back(s);
    }
  };
  visit(rule.start);
  for (size_t i = 0; i < reached.size(); ++i) {
    const auto& state = rule.machine.states[size_t(reached[i])];
    for (const int32_t to : state.empty) visit(to);
    if (!loops) continue;
    for (const auto& jump : state.jumps)
      if (jump.kind == Machine::Kind::enter ||
          (jump.kind == Machine::Kind::leave && (*loops)[size_t(jump.what)].minimum == 0))
        visit(jump.to);
  }
  return reached;
}

std::vector<std::vector<int32_t>> left_calls(const std::vector<RuleMachine>& rules,
                                             const std::vector<Automaton::Loop>& loops) {
  std::vector<std::vector<int32_t>> calls(rules.size());
  for (size_t r = 0; r < rules.size(); ++r) {
    for (const int32_t s : start_states(rules[r], &loops))
      for (const auto& jump : rules[r].machine.states[size_t(s)].jumps)
        if (jump.kind == Machine::Kind::call) calls[r].push_back(jump.what);
    std::sort(calls[r].begin(), calls[r].end());
    calls[r].erase(std::unique(calls[r].begin(), calls[r].end()), calls[r].end());
  }
  return calls;
}

// Callers first. What is not in the result lies on a cycle, or behind one.
std::vector<int32_t> callers_first(const std::vector<std::vector<int32_t>>& calls) {
  std::vector<size_t> callers(calls.size(), 0);
  for (const auto& called : calls)
    for (const int32_t r : called) ++callers[size_t(r)];
  std::vector<int32_t> order;
  for (size_t r = 0; r < calls.size(); ++r)
    if (callers[r] == 0) order.push_back(int32_t(r));
  for (size_t i = 0; i < order.size(); ++i)
    for (const int32_t r : calls[size_t(order[i])])
      if (--callers[size_t(r)] == 0) order.push_back(r);
  return order;
}

// The rules that lie on a cycle, or between two of them.
std::vector<int32_t> on_cycles(std::vector<std::vector<int32_t>> calls) {
  std::vector<bool> gone(calls.size(), false);
  for (int pass = 0; pass < 2; ++pass) {  // what is before all cycles, then, with the calls reversed, behind
    for (const int32_t r : callers_first(calls)) {
      gone[size_t(r)] = true;
      calls[size_t(r)].clear();
    }
    std::vector<std::vector<int32_t>> reversed(calls.size());
    for (size_t r = 0; r < calls.size(); ++r)
      for (const int32_t to : calls[r])
        if (!gone[size_t(to)]) reversed[size_t(to)].push_back(int32_t(r));
    calls = std::move(reversed);
  }
  std::vector<int32_t> out;
  for (size_t r = 0; r < gone.size(); ++r)
    if (!gone[r]) out.push_back(int32_t(r));
  return out;
}

constexpr size_t kMostStates = 20'000;  // of one rule while others are written out into it

[[noreturn]] void refuse(const std::string& name) {
  fail(ErrorKind::unsupported,
       "the rule {} begins with itself in a way that cannot be resolved; rewrite it with a repeat", name);
}

// Gives the rule a new start that nothing leads back to, with the same edges but the calls of `called`, whose
// returns are handed back.
std::vector<int32_t> take_calls(RuleMachine& rule, int32_t called) {
  std::vector<int32_t> returns;
  Machine::State fresh;
  for (const int32_t s : start_states(rule, nullptr)) {
    const auto& state = rule.machine.states[size_t(s)];
    fresh.final |= state.final;
    fresh.bytes.insert(fresh.bytes.end(), state.bytes.begin(), state.bytes.end());
    for (const auto& jump : state.jumps) {
      if (jump.kind == Machine::Kind::call && jump.what == called)
        returns.push_back(jump.to);
      else
        fresh.jumps.push_back(jump);
    }
  }
  if (returns.empty()) return returns;
  std::sort(returns.begin(), returns.end());
  returns.erase(std::unique(returns.begin(), returns.end()), returns.end());
  rule.start = int32_t(rule.machine.states.size());
  rule.machine.states.push_back(std::move(fresh));
  return returns;
}

void write_out(RuleMachine& rule, const RuleMachine& called, int32_t called_number) {
  const auto returns = take_calls(rule, called_number);
  for (const int32_t to : returns) {
    const int32_t first = int32_t(rule.machine.states.size());
    if (size_t(first) + called.machine.states.size() > kMostStates) refuse(rule.name);
    for (const auto& state : called.machine.states) {
      Machine::State copy = state;
      for (auto& edge : copy.bytes) edge.to += first;
      for (auto& edge : copy.jumps) edge.to += first;
      for (auto& edge : copy.empty) edge += first;
      if (copy.final) copy.empty.push_back(to);
      copy.final = false;
      rule.machine.states.push_back(std::move(copy));
    }
    rule.machine.states[size_t(rule.start)].empty.push_back(first + called.start);
  }
}

// Not the fresh start, where it is an end: an A of nothing, followed by what follows it, is skipped over by
// the empty steps that a rule which may be empty has beside its calls.
void remove_direct(RuleMachine& rule, int32_t number) {
  const auto returns = take_calls(rule, number);
  if (returns.empty()) return;
  for (size_t s = 0; s < rule.machine.states.size(); ++s) {
    auto& state = rule.machine.states[s];
    if (state.final && int32_t(s) != rule.start)
      state.empty.insert(state.empty.end(), returns.begin(), returns.end());
  }
}

}  // namespace

std::vector<int32_t> remove_left_recursion(std::vector<RuleMachine>& rules,
                                           const std::vector<Automaton::Loop>& loops) {
  auto order = callers_first(left_calls(rules, loops));
  if (order.size() == rules.size()) return order;
  constexpr size_t kMostRules = 200;
  const auto cyclic = on_cycles(left_calls(rules, loops));
  if (cyclic.size() > kMostRules) refuse(rules[size_t(cyclic[0])].name);
  for (size_t i = 0; i < cyclic.size(); ++i) {
    auto& rule = rules[size_t(cyclic[i])];
    for (size_t j = 0; j < i; ++j) write_out(rule, rules[size_t(cyclic[j])], cyclic[j]);
    remove_direct(rule, cyclic[i]);
  }
  order = callers_first(left_calls(rules, loops));
  if (order.size() != rules.size()) refuse(rules[size_t(cyclic[0])].name);
  return order;
}

}  // namespace cairn::text::constrain
