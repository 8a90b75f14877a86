#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "text/constrain/compiled_grammar.h"
#include "text/constrain/grammar.h"
#include "text/constrain/parse_states.h"

namespace cairn::text {

namespace {

using constrain::ParseStates;

// Parses looked at in one call: some hundredths of a second. Ordinary grammars take a few thousand.
constexpr size_t kMaskEffort = 2'000'000, kStepEffort = 100'000;
// Walks longer than this are worth keeping their result while the parse stands in the same place (inside a
// string, or in a loop of words).
constexpr size_t kLongWalk = 4'000;
constexpr size_t kKept = 4;

}  // namespace

struct GrammarMatcher::Impl {
  explicit Impl(GrammarPtr g) : grammar(std::move(g)), states(grammar->automaton) {
    states.renew_effort(kStepEffort);
    history.push_back(states.start());
  }

  GrammarPtr grammar;
  ParseStates states;
  std::vector<ParseStates::Config> history;  // after each accepted token; the last is where it stands
  int ends = 0;                              // end-of-turn tokens, the last of the history
  struct Kept {
    ParseStates::Config config = ParseStates::kDead;
    std::vector<uint32_t> bits;
  };
  std::array<Kept, kKept> kept;
  size_t next_kept = 0;

  ParseStates::Config now() const { return history.back(); }

  // Steps through bytes; kDead when they do not fit.
  ParseStates::Config after(std::string_view text) {
    auto config = now();
    for (const char c : text) {
      config = states.step(config, uint8_t(c));
      if (config == ParseStates::kDead) break;
    }
    return config;
  }

  // What the grammar's bytes allow, into bits (all 0).
  void fill_bytes(std::span<uint32_t> bits) {
    const auto& automaton = grammar->automaton;
    const auto& trie = grammar->vocabulary->trie;
    const auto span = states.items(now());
    const std::vector<ParseStates::Item> items(span.begin(), span.end());
    const auto mark = states.mark();
    size_t looked = 0;
    uint32_t returned_of = ParseStates::kBottom;
    auto returned = ParseStates::kDead;
    for (const auto& item : items) {
      const auto& state = automaton.states[item.state];
      if (state.bytes == state.bytes_end) continue;
      const auto mask = grammar->masks[state.rule]->mask(automaton, trie, item.state, item.count);
      for (size_t w = 0; w < mask->bits.size(); ++w) bits[w] |= mask->bits[w];
      for (const TokenId id : mask->tokens) bits[size_t(id) / 32] |= 1u << (id % 32);
      if (mask->returns.empty() || item.node == ParseStates::kBottom) continue;
      if (item.node != returned_of) {
        returned_of = item.node;
        returned = states.returned(item.node);
      }
      if (returned == ParseStates::kDead) continue;
      for (const uint32_t node : mask->returns)
        looked += allow_below(states, trie, node, returned, bits.data());
    }
    states.back_to(mark);
    if (looked > kLongWalk) {
      kept[next_kept] = {now(), std::vector<uint32_t>(bits.begin(), bits.end())};
      next_kept = (next_kept + 1) % kKept;
    }
  }

  void fill_special(std::span<uint32_t> bits) {
    const auto set = [&](TokenId id) { bits[size_t(id) / 32] |= 1u << (id % 32); };
    if (ends || states.at_end(now()))
      for (const TokenId id : grammar->vocabulary->end_of_turn) set(id);
    if (ends) return;
    for (const auto& item : states.items(now())) {
      const auto& state = grammar->automaton.states[item.state];
      if (!state.special) continue;
      for (const auto& jump : grammar->automaton.jumps_of(state)) {
        if (jump.kind != constrain::Machine::Kind::token) continue;
        if (jump.what != constrain::Machine::kOtherSpecial) {
          if (jump.what < grammar->vocabulary->trie.vocabulary_size()) set(jump.what);
        } else {
          for (const TokenId id : grammar->vocabulary->special) set(id);
        }
      }
    }
  }
};

GrammarMatcher::GrammarMatcher(GrammarPtr grammar) : impl_(std::make_unique<Impl>(std::move(grammar))) {}
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher&&) noexcept = default;

void GrammarMatcher::fill_mask(std::span<uint32_t> bits) {
  std::fill(bits.begin(), bits.end(), 0);
  impl_->states.renew_effort(kMaskEffort);
  if (!impl_->ends) {
    const auto found = std::find_if(impl_->kept.begin(), impl_->kept.end(),
                                    [&](const auto& kept) { return kept.config == impl_->now(); });
    if (found != impl_->kept.end() && found->config != ParseStates::kDead)
      std::copy(found->bits.begin(), found->bits.end(), bits.begin());
    else
      impl_->fill_bytes(bits);
  }
  impl_->fill_special(bits);
}

bool GrammarMatcher::accept(TokenId id) {
  auto& m = *impl_;
  const auto& vocabulary = *m.grammar->vocabulary;
  if (id < 0 || id >= vocabulary.trie.vocabulary_size()) return false;
  if (m.ends && !vocabulary.is_end(id)) return false;
  m.states.renew_effort(kStepEffort);
  auto next = ParseStates::kDead;
  if (vocabulary.is_end(id)) {
    if (m.ends || m.states.at_end(m.now())) {
      ++m.ends;
      m.history.push_back(m.now());
      return true;
    }
    next = m.states.step_special(m.now(), id);  // one that a tag names
  } else if (!vocabulary.trie.text(id).empty()) {
    next = m.after(vocabulary.trie.text(id));
  } else if (std::binary_search(vocabulary.special.begin(), vocabulary.special.end(), id)) {
    next = m.states.step_special(m.now(), id);
  }
  if (next == ParseStates::kDead) return false;
  m.history.push_back(next);
  return true;
}

bool GrammarMatcher::accept_text(std::string_view text) {
  if (impl_->ends) return false;
  impl_->states.renew_effort(kStepEffort + 64 * text.size());
  const auto next = impl_->after(text);
  if (next == ParseStates::kDead) return false;
  impl_->history.push_back(next);
  return true;
}

bool GrammarMatcher::at_end() const { return impl_->ends || impl_->states.at_end(impl_->now()); }

bool GrammarMatcher::must_end() const {
  return impl_->ends || (impl_->states.at_end(impl_->now()) && impl_->states.items(impl_->now()).empty());
}

void GrammarMatcher::rollback(int tokens) {
  if (tokens <= 0) return;
  impl_->ends = std::max(0, impl_->ends - tokens);
  impl_->history.resize(size_t(std::max(1, int(impl_->history.size()) - tokens)));
}

int GrammarMatcher::accepted() const { return int(impl_->history.size()) - 1; }

std::vector<TokenId> GrammarMatcher::forced() {
  auto& m = *impl_;
  std::vector<TokenId> out;
  if (m.ends) return out;
  m.states.renew_effort(kStepEffort);
  const auto mark = m.states.mark();
  std::string text;
  constexpr size_t kMostBytes = 256;
  for (auto config = m.now(); text.size() < kMostBytes && !m.states.at_end(config);) {
    int byte = -1;
    bool open = false;
    for (const auto& item : m.states.items(config)) {
      const auto& state = m.grammar->automaton.states[item.state];
      open |= state.special;
      for (const auto& edge : m.grammar->automaton.bytes_of(state)) {
        open |= edge.low != edge.high || (byte >= 0 && byte != edge.low);
        byte = edge.low;
      }
    }
    if (open || byte < 0) break;
    text += char(byte);
    config = m.states.step(config, uint8_t(byte));
  }
  m.states.back_to(mark);
  if (text.empty()) return out;
  const auto& vocabulary = *m.grammar->vocabulary;
  auto ids = vocabulary.tokenizer.encode(text, {.add_special = false, .parse_special = false});
  if (!ids.empty()) ids.pop_back();  // it may end otherwise together with what follows
  size_t at = 0;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary.trie.vocabulary_size()) break;
    const std::string& part = vocabulary.trie.text(id);
    if (part.empty() || text.compare(at, part.size(), part) != 0) break;
    at += part.size();
    out.push_back(id);
  }
  return out;
}

size_t GrammarMatcher::bytes() const {
  size_t sum = sizeof(Impl) + impl_->states.bytes() + impl_->history.capacity() * 4;
  for (const auto& kept : impl_->kept) sum += kept.bits.capacity() * 4;
  return sum;
}

}  // namespace cairn::text
