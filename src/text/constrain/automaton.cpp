#include "text/constrain/automaton.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace cairn::text::constrain {

namespace {

// Rules of up to so many states without loops become part of those that use them: a mask then looks through
// them instead of asking the stack after every character.
constexpr size_t kInlineStates = 48;
// Repeats are copied out up to so many states; beyond, they are counted.
constexpr size_t kUnrolledStates = 96;

class Builder {
 public:
  explicit Builder(Syntax& syntax) : syntax_(syntax), inlined_(syntax.rules(), false) {
    choose_inlined();
    for (size_t r = 0; r < syntax.rules(); ++r) machines.push_back({{}, 0, syntax.rule_at(RuleId(r)).name});
  }

  void build_all() {
    // Only what the root reaches; anonymous rules are appended while this goes on.
    const size_t start_rule = machines.size();
    machines.push_back({{}, 0, "start"});
    current_ = start_rule;
    begin(-1);
    call(syntax_.root, 0, 1);
    for (size_t i = 0; i < todo_.size(); ++i) {
      const auto [machine, node] = todo_[i];
      current_ = size_t(machine);
      begin(-1);
      build(node, 0, 1);
    }
    start = int32_t(start_rule);
  }

  std::vector<RuleMachine> machines;
  std::vector<Automaton::Loop> loops;
  int32_t start = 0;

 private:
  Machine& machine() { return machines[current_].machine; }
  std::vector<Machine::State>& states() { return machine().states; }

  void begin(int32_t loop) {
    machine().states.clear();
    machine().add(loop);
    states()[size_t(add(loop))].final = true;
  }
  int32_t add(int32_t loop) {
    syntax_.charge(1);
    return machine().add(loop);
  }
  int32_t loop_of(int32_t state) { return states()[size_t(state)].loop; }
  void step(int32_t from, int32_t to) { states()[size_t(from)].empty.push_back(to); }
  void jump(Machine::Kind kind, int32_t what, int32_t from, int32_t to) {
    states()[size_t(from)].jumps.push_back({kind, what, to});
  }

  // States that the node takes, as far as `limit`; more than that where it calls itself or loops.
  size_t cost(NodeId id, size_t limit, bool loops_cost_all) const {
    const auto& node = syntax_.node(id);
    size_t sum = 1;
    switch (node.kind) {
      case Syntax::Kind::text: return node.text.size();
      case Syntax::Kind::characters: return 1 + node.set.ranges().size() / 4;
      case Syntax::Kind::sequence:
      case Syntax::Kind::choice:
        for (const NodeId child : node.children) {
          if (sum > limit) break;
          sum += cost(child, limit, loops_cost_all);
        }
        return sum;
      case Syntax::Kind::repeat: {
        const uint64_t times = node.maximum == kUnbounded ? uint64_t(node.minimum) + 1 : node.maximum;
        if (node.maximum == kUnbounded && loops_cost_all) return limit + 1;
        return size_t(std::min<uint64_t>(limit + 1, times * cost(node.children[0], limit, loops_cost_all)));
      }
      case Syntax::Kind::call:
        return inlined_[size_t(node.what)] ? cost(syntax_.rule_at(node.what).body, limit, loops_cost_all)
               : loops_cost_all            ? limit + 1
                                           : 1;
      case Syntax::Kind::machine: return loops_cost_all ? limit + 1 : node.machine->states.size();
      default: return 1;
    }
  }

  // From the rules that call nothing upwards; those that call themselves are never reached. Only rules all of
  // whose calls are inlined are: a loop or a recursion below keeps a rule a rule.
  void choose_inlined() {
    const size_t n = syntax_.rules();
    std::vector<std::vector<RuleId>> users(n);
    std::vector<size_t> waiting(n, 0);
    for (size_t r = 0; r < n; ++r) {
      if (syntax_.rule_at(RuleId(r)).body < 0) continue;
      std::vector<NodeId> todo = {syntax_.rule_at(RuleId(r)).body};
      // A body that is small enough is walked in a few steps; a larger one is not inlined whatever it calls.
      for (size_t steps = 0; !todo.empty(); ++steps) {
        const auto& node = syntax_.node(todo.back());
        todo.pop_back();
        if (steps > 4 * kInlineStates) {
          ++waiting[r];
          break;
        }
        if (node.kind == Syntax::Kind::call) {
          ++waiting[r];
          users[size_t(node.what)].push_back(RuleId(r));
        }
        todo.insert(todo.end(), node.children.begin(), node.children.end());
      }
    }
    std::vector<RuleId> ready;
    for (size_t r = 0; r < n; ++r)
      if (waiting[r] == 0) ready.push_back(RuleId(r));
    while (!ready.empty()) {
      const RuleId r = ready.back();
      ready.pop_back();
      const auto& rule = syntax_.rule_at(r);
      if (rule.shared || rule.body < 0 || cost(rule.body, kInlineStates, true) > kInlineStates) continue;
      inlined_[size_t(r)] = true;
      for (const RuleId user : users[size_t(r)])
        if (--waiting[size_t(user)] == 0) ready.push_back(user);
    }
  }

  void call(RuleId rule, int32_t from, int32_t to) {
    if (size_t(rule) < inlined_.size() && inlined_[size_t(rule)]) {
      build(syntax_.rule_at(rule).body, from, to);
      return;
    }
    if (called_.size() < machines.size()) called_.resize(machines.size(), false);
    if (!called_[size_t(rule)]) {
      called_[size_t(rule)] = true;
      todo_.push_back({rule, syntax_.rule_at(rule).body});
    }
    jump(Machine::Kind::call, rule, from, to);
    if (syntax_.rule_at(rule).nullable) step(from, to);
  }

  void build(NodeId id, int32_t from, int32_t to) {
    const auto& node = syntax_.node(id);
    const int32_t loop = loop_of(from);
    switch (node.kind) {
      case Syntax::Kind::never: break;
      case Syntax::Kind::empty: step(from, to); break;
      case Syntax::Kind::text: {
        syntax_.charge(node.text.size());
        machine().add_text(node.text, from, to);
        break;
      }
      case Syntax::Kind::characters: {
        syntax_.charge(1 + node.set.ranges().size());
        machine().add_characters(node.set, from, to);
        break;
      }
      case Syntax::Kind::sequence:
        for (size_t i = 0; i < node.children.size(); ++i) {
          const int32_t next = i + 1 == node.children.size() ? to : add(loop);
          build(node.children[i], from, next);
          from = next;
        }
        break;
      case Syntax::Kind::choice:
        for (const NodeId child : node.children) build(child, from, to);
        break;
      case Syntax::Kind::repeat: repeat(id, from, to); break;
      case Syntax::Kind::call: call(node.what, from, to); break;
      case Syntax::Kind::token: jump(Machine::Kind::token, node.what, from, to); break;
      case Syntax::Kind::machine: {
        const int32_t first = int32_t(states().size());
        syntax_.charge(node.machine->states.size());
        for (const auto& state : node.machine->states) {
          Machine::State copy = state;
          for (auto& edge : copy.bytes) edge.to += first;
          for (auto& edge : copy.jumps) edge.to += first;
          for (auto& edge : copy.empty) edge += first;
          copy.final = false;
          copy.loop = loop;
          if (state.final) copy.empty.push_back(to);
          states().push_back(std::move(copy));
        }
        for (size_t s = size_t(first); s < size_t(first) + node.machine->states.size(); ++s) {
          const auto jumps = states()[s].jumps;
          states()[s].jumps.clear();
          for (const auto& j : jumps) {
            if (j.kind == Machine::Kind::call)
              call(j.what, int32_t(s), j.to);
            else
              states()[s].jumps.push_back(j);
          }
        }
        step(from, first);
        break;
      }
    }
  }

  void repeat(NodeId id, int32_t from, int32_t to) {
    const auto& node = syntax_.node(id);
    const NodeId child = node.children[0];
    const int32_t loop = loop_of(from);
    const bool open = node.maximum == kUnbounded;
    const uint64_t copies = open ? node.minimum : node.maximum;
    if (copies <= 1 || copies * cost(child, kUnrolledStates, false) <= kUnrolledStates) {
      for (uint32_t i = 0; i < node.minimum; ++i) {
        const int32_t next = add(loop);
        build(child, from, next);
        from = next;
      }
      if (open) {
        const int32_t around = add(loop);
        step(from, around);
        build(child, around, around);
        step(around, to);
        return;
      }
      step(from, to);
      for (uint32_t i = node.minimum; i < node.maximum; ++i) {
        const int32_t next = add(loop);
        build(child, from, next);
        step(next, to);
        from = next;
      }
      return;
    }
    if (loop >= 0) {  // a frame has one count; the inner loop gets its own
      const int32_t rule = int32_t(machines.size());
      machines.push_back({{}, 0, machines[current_].name + " repeat"});
      todo_.push_back({rule, id});
      jump(Machine::Kind::call, rule, from, to);
      if (node.nullable) step(from, to);
      return;
    }
    const bool nullable = syntax_.node(child).nullable;
    const int32_t counted = int32_t(loops.size());
    loops.push_back({nullable ? 0 : node.minimum, node.maximum});
    const int32_t head = add(counted);
    jump(Machine::Kind::enter, counted, from, head);
    jump(Machine::Kind::leave, counted, head, to);
    if (!nullable) {
      const int32_t end = add(counted);
      build(child, head, end);
      jump(Machine::Kind::again, counted, end, head);
      return;
    }
    // A round that reads nothing would count for ever. Each state twice: before and after something was read.
    const int32_t first = add(counted), end = add(counted);
    build(child, first, end);
    const size_t last = states().size(), body = last - size_t(first);
    syntax_.charge(body);
    for (size_t s = size_t(first); s < last; ++s) states().push_back(states()[s]);
    const auto after = [&](int32_t s) { return s + int32_t(body); };
    for (size_t s = size_t(first); s < last; ++s) {
      for (auto& edge : states()[s].bytes) edge.to = after(edge.to);
      for (auto& edge : states()[s].jumps) edge.to = after(edge.to);
      auto& copy = states()[s + body];
      for (auto& edge : copy.bytes) edge.to = after(edge.to);
      for (auto& edge : copy.jumps) edge.to = after(edge.to);
      for (auto& edge : copy.empty) edge = after(edge);
    }
    step(head, first);
    jump(Machine::Kind::again, counted, after(end), head);
  }

  Syntax& syntax_;
  std::vector<bool> inlined_, called_;
  std::vector<std::pair<int32_t, NodeId>> todo_;
  size_t current_ = 0;
};

// The rule's machine from its start on, as determinised as it may be.
Machine settle(RuleMachine& rule) {
  Machine& machine = rule.machine;
  if (machine.states.empty()) return {};
  if (rule.start != 0) {  // the start comes first
    std::swap(machine.states[0], machine.states[size_t(rule.start)]);
    const auto renamed = [&](int32_t s) { return s == 0 ? rule.start : s == rule.start ? 0 : s; };
    for (auto& state : machine.states) {
      for (auto& edge : state.bytes) edge.to = renamed(edge.to);
      for (auto& edge : state.jumps) edge.to = renamed(edge.to);
      for (auto& edge : state.empty) edge = renamed(edge);
    }
    rule.start = 0;
  }
  auto single = determinise(machine, 2 * machine.states.size() + 32);
  return single ? std::move(*single) : std::move(machine);
}

}  // namespace

size_t Automaton::size_bytes() const {
  return sizeof *this + states.capacity() * sizeof(State) + bytes.capacity() * sizeof(Bytes) +
         jumps.capacity() * sizeof(Jump) + loops.capacity() * sizeof(Loop) + rules.capacity() * sizeof(Rule);
}

Automaton compile(Syntax&& syntax) {
  syntax.complete();
  if (syntax.root < 0 || !syntax.rule_at(syntax.root).productive)
    fail(ErrorKind::invalid_argument, "nothing can match: no text completes the grammar");
  Builder builder(syntax);
  builder.build_all();
  const auto order = remove_left_recursion(builder.machines, builder.loops);

  Automaton out;
  out.loops = std::move(builder.loops);
  for (auto& rule : builder.machines) {
    const uint32_t first = uint32_t(out.states.size());
    const Machine machine = settle(rule);
    Automaton::Rule entry{first, uint32_t(machine.states.size()), first, 0, true};
    for (const auto& state : machine.states) {
      Automaton::State flat{};
      flat.bytes = uint32_t(out.bytes.size());
      for (const auto& edge : state.bytes)
        out.bytes.push_back({edge.low, edge.high, first + uint32_t(edge.to)});
      flat.bytes_end = uint32_t(out.bytes.size());
      flat.jumps = uint32_t(out.jumps.size());
      for (const int32_t to : state.empty)
        out.jumps.push_back({Machine::Kind::nothing, 0, first + uint32_t(to)});
      for (const auto& jump : state.jumps) {
        out.jumps.push_back({jump.kind, jump.what, first + uint32_t(jump.to)});
        flat.head |= jump.kind == Machine::Kind::leave;
        flat.special |= jump.kind == Machine::Kind::token;
        if (jump.kind == Machine::Kind::call) entry.leaf = false;
      }
      flat.jumps_end = uint32_t(out.jumps.size());
      flat.rule = uint32_t(out.rules.size());
      flat.loop = state.loop;
      flat.final = state.final;
      flat.only_end = state.final && state.bytes.empty() && state.jumps.empty() && state.empty.empty();
      flat.plain = !state.final && state.jumps.empty() && state.empty.empty();
      out.states.push_back(flat);
    }
    out.rules.push_back(entry);
  }
  for (size_t i = 0; i < order.size(); ++i) out.rules[size_t(order[i])].rank = uint32_t(i);
  out.start = out.rules[size_t(builder.start)].start;
  return out;
}

}  // namespace cairn::text::constrain
