#include "text/constrain/state_mask.h"

#include <algorithm>
#include <array>
#include <mutex>

namespace cairn::text::constrain {

namespace {

// Items looked at in one walk over the vocabulary: a tenth of a second, and hundreds of times what ordinary
// grammars take.
constexpr size_t kEffort = 5'000'000;

// How many more rounds make a difference to tokens of up to `longest` bytes.
uint64_t near(uint32_t rounds, uint32_t longest) { return std::min(rounds, longest + 1); }

}  // namespace

size_t allow_below(ParseStates& states, const TokenTrie& trie, uint32_t node, ParseStates::Config config,
                   uint32_t* bits) {
  const auto nodes = trie.nodes();
  std::array<ParseStates::Config, 257> at;
  const uint32_t end = nodes[node].after;
  at[nodes[node].depth] = config;
  size_t looked = 0;
  for (uint32_t i = node + 1; i < end;) {
    ++looked;
    const auto& n = nodes[i];
    const auto next = states.walk(at[n.depth - 1u], n.byte);
    if (next == ParseStates::kDead) {
      i = n.after;
      continue;
    }
    for (const TokenId id : trie.tokens_at(i)) bits[size_t(id) / 32] |= 1u << (id % 32);
    at[n.depth] = next;
    ++i;
  }
  return looked;
}

StateMask compute_mask(const Automaton& automaton, const TokenTrie& trie, uint32_t state, uint32_t count) {
  ParseStates states(automaton);
  states.renew_effort(kEffort);
  const auto nodes = trie.nodes();
  std::array<ParseStates::Config, 257> at;
  at[0] = states.start_at(state, count);
  StateMask out;
  struct Open {  // a node after which the rule may have ended
    uint32_t node, allowed_before;
  };
  std::vector<Open> ends;
  const auto settle = [&](uint32_t reached) {
    while (!ends.empty() && nodes[ends.back().node].after <= reached) {
      const Open end = ends.back();
      ends.pop_back();
      const size_t below = trie.tokens_below(end.node).size() - trie.tokens_at(end.node).size();
      if (out.tokens.size() - end.allowed_before < below) out.returns.push_back(end.node);
    }
  };
  for (uint32_t i = 1; i < nodes.size();) {
    settle(i);
    const auto& n = nodes[i];
    const auto next = states.walk(at[n.depth - 1u], n.byte);
    if (next == ParseStates::kDead) {
      i = n.after;
      continue;
    }
    const auto here = trie.tokens_at(i);
    out.tokens.insert(out.tokens.end(), here.begin(), here.end());
    if (states.at_end(next)) ends.push_back({i, uint32_t(out.tokens.size())});
    if (states.items(next).empty()) {
      i = n.after;
      continue;
    }
    at[n.depth] = next;
    ++i;
  }
  settle(uint32_t(nodes.size()));
  std::sort(out.returns.begin(), out.returns.end());
  if (out.tokens.size() > trie.words()) {
    out.bits.assign(trie.words(), 0);
    for (const TokenId id : out.tokens) out.bits[size_t(id) / 32] |= 1u << (id % 32);
    out.tokens = {};
  }
  out.tokens.shrink_to_fit();
  out.returns.shrink_to_fit();
  return out;
}

std::shared_ptr<const StateMask> MaskTable::mask(const Automaton& automaton, const TokenTrie& trie,
                                                 uint32_t state, uint32_t count) {
  const auto& s = automaton.states[state];
  uint64_t key = state - automaton.rules[s.rule].first_state;
  if (s.loop >= 0) {
    const auto& loop = automaton.loops[size_t(s.loop)];
    const uint64_t least = near(loop.minimum - std::min(loop.minimum, count), trie.longest());
    const uint64_t most = loop.maximum == kUnbounded ? 0x3ff : near(loop.maximum - count, trie.longest());
    key |= least << 44 | most << 54;
  }
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = masks_.find(key); found != masks_.end()) return found->second;
  }
  auto made = std::make_shared<const StateMask>(compute_mask(automaton, trie, state, count));
  ++computed_;
  constexpr size_t kEntry = 64;  // of the map, beside the mask
  const size_t size = made->bytes() + kEntry;
  const std::unique_lock lock(mutex_);
  if (budget_->used + size > budget_->limit) {  // start over: what is still needed comes back
    masks_.clear();
    budget_->used -= held_;
    held_ = 0;
    if (budget_->used + size > budget_->limit)
      return made;  // others hold it all; the next compilation makes room
  }
  if (!masks_.try_emplace(key, made).second) return masks_.at(key);  // another thread was faster
  held_ += size;
  budget_->used += size;
  return made;
}

}  // namespace cairn::text::constrain
