// Which tokens may follow, as far as one state of one rule decides that without its callers: computed once,
// kept for all answers (the idea of XGrammar's context-independent tokens, Dong et al. 2024,
// arXiv:2411.15100).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "text/constrain/automaton.h"
#include "text/constrain/parse_states.h"
#include "text/constrain/token_trie.h"

namespace cairn::text::constrain {

struct StateMask {
  std::vector<uint32_t> bits;  // one per token; empty when there are few, which `tokens` lists
  std::vector<TokenId> tokens;
  // Trie nodes after whose text the rule may have ended, with tokens below them that only its caller can
  // allow.
  std::vector<uint32_t> returns;
  size_t bytes() const {
    return sizeof *this + bits.capacity() * 4 + tokens.capacity() * 4 + returns.capacity() * 4;
  }
};

StateMask compute_mask(const Automaton&, const TokenTrie&, uint32_t state, uint32_t count);

// Sets the bits of the tokens below the trie node whose remaining bytes fit from this configuration on.
// Returns how many nodes were looked at.
size_t allow_below(ParseStates&, const TokenTrie&, uint32_t node, ParseStates::Config, uint32_t* bits);

// What all tables together may hold.
struct MaskBudget {
  std::atomic<size_t> used = 0;
  size_t limit = 0;
};

// The masks of one rule's states so far. Thread-safe. Rules of equal content in several grammars share one.
class MaskTable {
 public:
  explicit MaskTable(std::shared_ptr<MaskBudget> budget) : budget_(std::move(budget)) {}
  ~MaskTable() { budget_->used -= held_; }
  MaskTable(const MaskTable&) = delete;
  MaskTable& operator=(const MaskTable&) = delete;

  std::shared_ptr<const StateMask> mask(const Automaton&, const TokenTrie&, uint32_t state, uint32_t count);
  size_t computed() const { return computed_; }

 private:
  std::shared_ptr<MaskBudget> budget_;
  std::shared_mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<const StateMask>> masks_;
  size_t held_ = 0;
  std::atomic<size_t> computed_ = 0;
};

}  // namespace cairn::text::constrain
