#include "text/constrain/parse_states.h"

#include <algorithm>

#include "base/error.h"

namespace cairn::text::constrain {

namespace {

constexpr size_t kMostMemory = 256u << 20;  // of one answer's parse; ordinary ones take kilobytes
constexpr size_t kFewSeen = 24;

uint64_t mix(uint64_t hash, uint64_t v) {
  hash = (hash ^ v) * 0x9e3779b97f4a7c15;
  return hash ^ hash >> 32;
}

uint64_t hash_of(std::span<const ParseStates::Item> items, bool flag) {
  uint64_t hash = flag ? 0x1234567 : 0x89abcdef;
  for (const auto& item : items) hash = mix(mix(hash, uint64_t(item.state) << 32 | item.count), item.node);
  return hash;
}

}  // namespace

void NumberTable::grow() {
  slots_.assign(slots_.size() * 2, 0);
  for (uint32_t n = 0; n < hashes_.size(); ++n) {
    size_t i = hashes_[n] & (slots_.size() - 1);
    while (slots_[i] != 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = n + 1;
  }
}

// Numbers are put in ascending, also by grow(), so that no chain of probes depends on a later one.
void NumberTable::truncate(uint32_t size) {
  for (uint32_t n = uint32_t(hashes_.size()); n > size; --n) {
    size_t i = hashes_[n - 1] & (slots_.size() - 1);
    while (slots_[i] != n) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = 0;
  }
  hashes_.resize(size);
}

ParseStates::ParseStates(const Automaton& automaton) : automaton_(automaton) {
  std::vector<Item> none;
  node(none);  // kBottom
  intern();    // kDead
}

void ParseStates::back_to(Mark mark) {
  node_table_.truncate(mark.nodes);
  config_table_.truncate(mark.configs);
  returns_.resize(nodes_[mark.nodes - 1].end);
  nodes_.resize(mark.nodes);
  pool_.resize(configs_[mark.configs - 1].end);
  configs_.resize(mark.configs);
  for (const Config config : with_row_) row_of_[config] = 0;
  with_row_.clear();
  rows_.clear();
  row_of_.resize(mark.configs);
}

size_t ParseStates::bytes() const {
  return (nodes_.capacity() + configs_.capacity()) * sizeof(Span) +
         (returns_.capacity() + pool_.capacity()) * sizeof(Item) + node_table_.bytes() +
         config_table_.bytes() + rows_.capacity() * sizeof(Row) + row_of_.capacity() * 4;
}

uint32_t ParseStates::new_row(Config config) {
  rows_.emplace_back().fill(kUnknown);
  with_row_.push_back(config);
  return row_of_[config] = uint32_t(rows_.size());
}

uint32_t ParseStates::node(std::vector<Item>& returns) {
  std::sort(returns.begin(), returns.end());
  returns.erase(std::unique(returns.begin(), returns.end()), returns.end());
  const uint32_t next = uint32_t(nodes_.size());
  const uint32_t number = node_table_.find_or_add(hash_of(returns, false), next, [&](uint32_t n) {
    return std::equal(returns.begin(), returns.end(), returns_.begin() + nodes_[n].begin,
                      returns_.begin() + nodes_[n].end);
  });
  if (number == next) {
    const uint32_t begin = uint32_t(returns_.size());
    returns_.insert(returns_.end(), returns.begin(), returns.end());
    nodes_.push_back({begin, uint32_t(returns_.size())});
  }
  return number;
}

ParseStates::Config ParseStates::intern() {
  if (open_.empty() && !end_reached_ && !configs_.empty()) return kDead;
  if (open_.size() > 1) std::sort(open_.begin(), open_.end());
  const uint32_t next = uint32_t(configs_.size());
  const uint32_t number = config_table_.find_or_add(hash_of(open_, end_reached_), next, [&](uint32_t c) {
    return configs_[c].end_reached == end_reached_ &&
           std::equal(open_.begin(), open_.end(), pool_.begin() + configs_[c].begin,
                      pool_.begin() + configs_[c].end);
  });
  if (number == next) {
    const uint32_t begin = uint32_t(pool_.size());
    pool_.insert(pool_.end(), open_.begin(), open_.end());
    configs_.push_back({begin, uint32_t(pool_.size()), end_reached_});
    row_of_.push_back(0);
    if (next % 4096 == 0 && bytes() > kMostMemory) {
      end_reached_ = false;
      fail(ErrorKind::invalid_argument,
           "the answer's parse takes more than {} MiB; the grammar is too ambiguous", kMostMemory >> 20);
    }
  }
  return number;
}

void ParseStates::push(Item item) {
  if (effort_left_ == 0) {
    todo_.clear();
    seen_.clear();
    pending_used_ = 0;
    end_reached_ = false;
    fail(ErrorKind::invalid_argument, "the grammar is too ambiguous: one step looks at more than {} parses",
         effort_);
  }
  --effort_left_;
  if (seen_.size() < kFewSeen) {
    if (std::find(seen_.begin(), seen_.end(), item) != seen_.end()) return;
    seen_.push_back(item);
    todo_.push_back(item);
    return;
  }
  if (seen_.size() == kFewSeen || seen_.size() * 2 > seen_table_.size()) {
    const size_t size = std::max<size_t>(256, seen_.size() * 4);
    if (seen_table_.size() < size) {
      seen_table_.assign(size <= 256 ? 256 : size_t(1) << (64 - __builtin_clzll(size - 1)), 0);
      seen_round_.assign(seen_table_.size(), 0);
      round_ = 0;
    }
    ++round_;
    for (uint32_t n = 0; n < seen_.size(); ++n) {
      size_t i = hash_of({&seen_[n], 1}, false) & (seen_table_.size() - 1);
      while (seen_round_[i] == round_) i = (i + 1) & (seen_table_.size() - 1);
      seen_round_[i] = round_;
      seen_table_[i] = n;
    }
  }
  size_t i = hash_of({&item, 1}, false) & (seen_table_.size() - 1);
  while (seen_round_[i] == round_) {
    if (seen_[seen_table_[i]] == item) return;
    i = (i + 1) & (seen_table_.size() - 1);
  }
  seen_round_[i] = round_;
  seen_table_[i] = uint32_t(seen_.size());
  seen_.push_back(item);
  todo_.push_back(item);
}

void ParseStates::call(uint32_t rule, const Item& back) {
  Pending* entry = nullptr;
  for (size_t i = 0; i < pending_used_; ++i)
    if (pending_[i].rule == rule) entry = &pending_[i];
  if (!entry) {
    if (pending_used_ == pending_.size()) pending_.emplace_back();
    entry = &pending_[pending_used_++];
    entry->rule = rule;
    entry->rank = automaton_.rules[rule].rank;
    entry->returns.clear();
  }
  // A call that nothing follows returns to where its caller would.
  if (back.node != kBottom && automaton_.states[back.state].only_end) {
    const Span& span = nodes_[back.node];
    entry->returns.insert(entry->returns.end(), returns_.begin() + span.begin, returns_.begin() + span.end);
  } else {
    entry->returns.push_back(back);
  }
}

// returns: whether the rule may end here. Not when it began here: what may be empty is skipped where it is
// called (Automaton's empty steps), and its frame may not be complete yet.
void ParseStates::process(const Item& item, bool returns) {
  const auto& state = automaton_.states[item.state];
  const bool full = state.head && item.count >= automaton_.loops[size_t(state.loop)].maximum;
  if (!full && (state.bytes != state.bytes_end || state.special)) open_.push_back(item);
  for (const auto& jump : automaton_.jumps_of(state)) {
    switch (jump.kind) {
      case Machine::Kind::nothing:
        if (!full) push({jump.to, item.count, item.node});
        break;
      case Machine::Kind::enter: push({jump.to, 0, item.node}); break;
      case Machine::Kind::leave:
        if (item.count >= automaton_.loops[size_t(jump.what)].minimum) push({jump.to, 0, item.node});
        break;
      case Machine::Kind::again: {
        const auto& loop = automaton_.loops[size_t(jump.what)];
        uint32_t count = item.count + 1;
        if (loop.maximum == kUnbounded) count = std::min(count, loop.minimum);  // more make no difference
        push({jump.to, count, item.node});
        break;
      }
      case Machine::Kind::call:
        if (!full) call(uint32_t(jump.what), {jump.to, item.count, item.node});
        break;
      case Machine::Kind::token: break;
    }
  }
  if (!state.final || !returns) return;
  if (item.node == kBottom) {
    end_reached_ = true;
    return;
  }
  const Span span = nodes_[item.node];
  for (uint32_t i = span.begin; i < span.end; ++i) push(returns_[i]);
}

ParseStates::Config ParseStates::close() {
  open_.clear();
  // First all that goes on with older frames; then what was called, callers before what they call, so that
  // every frame knows all its returns when it begins.
  bool returns = true;
  for (;;) {
    while (!todo_.empty()) {
      const Item item = todo_.back();
      todo_.pop_back();
      process(item, returns);
    }
    returns = false;
    if (pending_used_ == 0) break;
    size_t first = 0;
    for (size_t i = 1; i < pending_used_; ++i)
      if (pending_[i].rank < pending_[first].rank) first = i;
    std::swap(pending_[first], pending_[--pending_used_]);
    Pending& next = pending_[pending_used_];
    const uint32_t frame = node(next.returns);
    push({automaton_.rules[next.rule].start, 0, frame});
  }
  seen_.clear();
  const Config config = intern();
  end_reached_ = false;
  return config;
}

ParseStates::Config ParseStates::start() {
  push({automaton_.start, 0, kBottom});
  return close();
}

ParseStates::Config ParseStates::start_at(uint32_t state, uint32_t count) {
  open_.assign(1, {state, count, kBottom});
  end_reached_ = false;
  return intern();
}

ParseStates::Config ParseStates::returned(uint32_t at) {
  const Span span = nodes_[at];
  for (uint32_t i = span.begin; i < span.end; ++i) push(returns_[i]);
  return close();
}

ParseStates::Config ParseStates::step(Config config, uint8_t byte) {
  const Span span = configs_[config];
  const bool single = span.end - span.begin == 1;
  for (uint32_t i = span.begin; i < span.end; ++i) {
    const Item item = pool_[i];
    for (const auto& edge : automaton_.bytes_of(automaton_.states[item.state])) {
      if (byte < edge.low || byte > edge.high) continue;
      if (single && automaton_.states[edge.to].plain && todo_.empty()) {
        // One way on and nothing but bytes there: most of all steps. Not determinised machines may have more.
        bool other = false;
        for (const auto* e = &edge + 1;
             e != automaton_.bytes.data() + automaton_.states[item.state].bytes_end; ++e)
          other |= e->low <= byte && byte <= e->high;
        if (!other) {
          open_.assign(1, {edge.to, item.count, item.node});
          return intern();
        }
      }
      push({edge.to, item.count, item.node});
    }
  }
  if (todo_.empty()) return kDead;
  return close();
}

ParseStates::Config ParseStates::step_special(Config config, int32_t token) {
  const Span span = configs_[config];
  for (uint32_t i = span.begin; i < span.end; ++i) {
    const Item item = pool_[i];
    const auto jumps = automaton_.jumps_of(automaton_.states[item.state]);
    const auto named = [&](int32_t what) {
      bool found = false;
      for (const auto& jump : jumps)
        if (jump.kind == Machine::Kind::token && jump.what == what) {
          push({jump.to, item.count, item.node});
          found = true;
        }
      return found;
    };
    if (automaton_.states[item.state].special && !named(token)) named(Machine::kOtherSpecial);
  }
  if (todo_.empty()) return kDead;
  return close();
}

}  // namespace cairn::text::constrain
