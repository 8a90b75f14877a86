#include "text/constrain/machine.h"

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>
#include <utility>

namespace cairn::text::constrain {

namespace {

using Subset = std::vector<int32_t>;

struct SubsetHash {
  size_t operator()(const Subset& subset) const {
    uint64_t hash = 0xcbf29ce484222325;
    for (const int32_t v : subset) hash = (hash ^ uint32_t(v)) * 0x9e3779b97f4a7c15;
    return size_t(hash ^ hash >> 29);
  }
};

// Adds what is reached for nothing; leaves the states that do something, ascending.
class Closure {
 public:
  explicit Closure(const Machine& machine) : machine_(machine), seen_(machine.states.size(), 0) {}

  void close(Subset& subset) {
    ++round_;
    todo_.clear();
    for (const int32_t s : subset) visit(s);
    subset.clear();
    while (!todo_.empty()) {
      const int32_t s = todo_.back();
      todo_.pop_back();
      const auto& state = machine_.states[size_t(s)];
      for (const int32_t to : state.empty) visit(to);
      if (state.final || !state.bytes.empty() || !state.jumps.empty()) subset.push_back(s);
    }
    std::sort(subset.begin(), subset.end());
  }

 private:
  void visit(int32_t s) {
    if (seen_[size_t(s)] == round_) return;
    seen_[size_t(s)] = round_;
    todo_.push_back(s);
  }
  const Machine& machine_;
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
  std::vector<int32_t> todo_;
};

void sort_edges(std::vector<Machine::Bytes>& edges) {
  std::sort(edges.begin(), edges.end(), [](const auto& a, const auto& b) { return a.low < b.low; });
  size_t kept = 0;
  for (size_t i = 1; i < edges.size(); ++i) {
    if (edges[i].to == edges[kept].to && edges[i].low == edges[kept].high + 1)
      edges[kept].high = edges[i].high;
    else
      edges[++kept] = edges[i];
  }
  if (!edges.empty()) edges.resize(kept + 1);
}

int32_t step(const Machine& machine, int32_t state, uint8_t byte) {
  if (state < 0) return -1;
  for (const auto& edge : machine.states[size_t(state)].bytes)
    if (edge.low <= byte && byte <= edge.high) return edge.to;
  return -1;
}

// Pairs of states; the second may be -1 (nothing left of it) when `second_may_die`.
std::optional<Machine> product(const Machine& a, const Machine& b, bool second_may_die, bool second_final,
                               size_t max_states) {
  Machine out;
  std::map<std::pair<int32_t, int32_t>, int32_t> known;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto find = [&](int32_t x, int32_t y) {
    const auto [at, fresh] = known.try_emplace({x, y}, int32_t(pairs.size()));
    if (fresh) {
      pairs.push_back({x, y});
      const bool y_final = y >= 0 && b.states[size_t(y)].final;
      out.states.emplace_back().final = a.states[size_t(x)].final && y_final == second_final;
    }
    return at->second;
  };
  find(0, 0);
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs.size() > max_states) return std::nullopt;
    const auto [x, y] = pairs[i];
    std::vector<Machine::Bytes> edges;
    for (const auto& edge : a.states[size_t(x)].bytes) {
      for (int byte = edge.low; byte <= edge.high; ++byte) {
        const int32_t to = step(b, y, uint8_t(byte));
        if (to < 0 && !second_may_die) continue;
        const int32_t target = find(edge.to, to);
        if (!edges.empty() && edges.back().to == target && edges.back().high + 1 == byte)
          edges.back().high = uint8_t(byte);
        else
          edges.push_back({uint8_t(byte), uint8_t(byte), target});
      }
    }
    sort_edges(edges);
    out.states[i].bytes = std::move(edges);
  }
  trim(out);
  return out;
}

}  // namespace

void Machine::add_text(std::string_view text, int32_t from, int32_t to) {
  const int32_t loop = states[size_t(from)].loop;
  if (text.empty()) {
    states[size_t(from)].empty.push_back(to);
    return;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const int32_t next = i + 1 == text.size() ? to : add(loop);
    states[size_t(from)].bytes.push_back({uint8_t(text[i]), uint8_t(text[i]), next});
    from = next;
  }
}

void Machine::add_characters(const CodePoints& set, int32_t from, int32_t to) {
  const int32_t loop = states[size_t(from)].loop;
  // By what is still to come, from the last byte backwards: (low, high, where it leads) -> the state before
  // it.
  std::map<std::array<int32_t, 3>, int32_t> before;
  std::map<std::array<int32_t, 3>, int32_t> leads;  // after which lead bytes, so that no edge is there twice
  for (const Utf8Sequence& sequence : utf8_sequences(set)) {
    int32_t at = to;
    for (int i = sequence.length - 1; i > 0; --i) {
      const auto [low, high] = sequence.bytes[i];
      const auto [found, fresh] = before.try_emplace({low, high, at}, 0);
      if (fresh) {
        found->second = add(loop);
        states[size_t(found->second)].bytes.push_back({low, high, at});
      }
      at = found->second;
    }
    const auto [low, high] = sequence.bytes[0];
    if (leads.try_emplace({low, high, at}, 0).second) {
      auto& edges = states[size_t(from)].bytes;
      if (!edges.empty() && edges.back().to == at && edges.back().high + 1 == low)
        edges.back().high = high;
      else
        edges.push_back({low, high, at});
    }
  }
}

std::optional<Machine> determinise(const Machine& machine, size_t max_states) {
  Closure closure(machine);
  Machine out;
  std::unordered_map<Subset, int32_t, SubsetHash> known;
  std::vector<Subset> subsets;
  const auto find = [&](Subset subset) {
    closure.close(subset);
    const auto [at, fresh] = known.try_emplace(std::move(subset), int32_t(subsets.size()));
    if (fresh) {
      subsets.push_back(at->first);
      auto& state = out.states.emplace_back();
      for (const int32_t s : at->first) state.final |= machine.states[size_t(s)].final;
      state.loop = at->first.empty() ? -1 : machine.states[size_t(at->first[0])].loop;
    }
    return at->second;
  };
  find({0});
  std::vector<Machine::Bytes> edges;
  std::vector<Machine::Jump> jumps;
  for (size_t i = 0; i < subsets.size(); ++i) {
    if (subsets.size() > max_states) return std::nullopt;
    edges.clear();
    jumps.clear();
    for (const int32_t s : subsets[i]) {
      const auto& state = machine.states[size_t(s)];
      edges.insert(edges.end(), state.bytes.begin(), state.bytes.end());
      jumps.insert(jumps.end(), state.jumps.begin(), state.jumps.end());
    }
    std::vector<Machine::Bytes> joined;
    if (edges.size() == 1) {
      joined.push_back({edges[0].low, edges[0].high, find({edges[0].to})});
    } else if (!edges.empty()) {
      bool starts[257] = {};  // where the set of edges that hold changes
      for (const auto& edge : edges) starts[edge.low] = starts[edge.high + 1] = true;
      std::sort(edges.begin(), edges.end(), [](const auto& a, const auto& b) { return a.low < b.low; });
      for (int low = 0; low < 256;) {
        int high = low;
        while (high < 255 && !starts[high + 1]) ++high;
        Subset targets;
        for (const auto& edge : edges) {
          if (edge.low > low) break;
          if (edge.high >= high) targets.push_back(edge.to);
        }
        if (!targets.empty()) joined.push_back({uint8_t(low), uint8_t(high), find(std::move(targets))});
        low = high + 1;
      }
      sort_edges(joined);
    }
    std::sort(jumps.begin(), jumps.end());
    std::vector<Machine::Jump> merged;
    for (size_t j = 0; j < jumps.size();) {
      Subset targets;
      size_t k = j;
      for (; k < jumps.size() && jumps[k].kind == jumps[j].kind && jumps[k].what == jumps[j].what; ++k)
        targets.push_back(jumps[k].to);
      merged.push_back({jumps[j].kind, jumps[j].what, find(std::move(targets))});
      j = k;
    }
    out.states[i].bytes = std::move(joined);
    out.states[i].jumps = std::move(merged);
  }
  return out;
}

void trim(Machine& machine) {
  const size_t n = machine.states.size();
  std::vector<std::vector<int32_t>> from(n);
  std::vector<int32_t> todo;
  std::vector<bool> alive(n, false);
  for (size_t s = 0; s < n; ++s) {
    for (const auto& edge : machine.states[s].bytes) from[size_t(edge.to)].push_back(int32_t(s));
    for (const auto& jump : machine.states[s].jumps) from[size_t(jump.to)].push_back(int32_t(s));
    for (const int32_t to : machine.states[s].empty) from[size_t(to)].push_back(int32_t(s));
    if (machine.states[s].final) {
      alive[s] = true;
      todo.push_back(int32_t(s));
    }
  }
  while (!todo.empty()) {
    const int32_t s = todo.back();
    todo.pop_back();
    for (const int32_t p : from[size_t(s)])
      if (!alive[size_t(p)]) {
        alive[size_t(p)] = true;
        todo.push_back(p);
      }
  }
  std::vector<int32_t> renamed(n, -1);
  std::vector<Machine::State> kept;
  for (size_t s = 0; s < n; ++s)
    if (alive[s] || s == 0) {
      renamed[s] = int32_t(kept.size());
      kept.push_back(std::move(machine.states[s]));
    }
  const auto dead = [&](int32_t to) { return !alive[size_t(to)]; };
  for (auto& state : kept) {
    std::erase_if(state.bytes, [&](const auto& edge) { return dead(edge.to); });
    std::erase_if(state.jumps, [&](const auto& jump) { return dead(jump.to); });
    std::erase_if(state.empty, dead);
    for (auto& edge : state.bytes) edge.to = renamed[size_t(edge.to)];
    for (auto& jump : state.jumps) jump.to = renamed[size_t(jump.to)];
    for (auto& to : state.empty) to = renamed[size_t(to)];
  }
  machine.states = std::move(kept);
}

std::optional<Machine> intersect(const Machine& a, const Machine& b, size_t max_states) {
  return product(a, b, false, true, max_states);
}

std::optional<Machine> subtract(const Machine& a, const Machine& b, size_t max_states) {
  return product(a, b, true, false, max_states);
}

bool is_empty(const Machine& machine) {
  return machine.states.empty() ||
         (machine.states.size() == 1 && !machine.states[0].final && machine.states[0].bytes.empty());
}

bool matches(const Machine& machine, std::string_view text) {
  int32_t state = 0;
  for (const char c : text) {
    state = step(machine, state, uint8_t(c));
    if (state < 0) return false;
  }
  return machine.states[size_t(state)].final;
}

}  // namespace cairn::text::constrain
