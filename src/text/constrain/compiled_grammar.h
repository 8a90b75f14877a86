// What a Grammar holds.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "text/constrain/automaton.h"
#include "text/constrain/grammar.h"
#include "text/constrain/state_mask.h"
#include "text/constrain/token_trie.h"

namespace cairn::text {

namespace constrain {

// What all grammars of one tokenizer share.
struct Vocabulary {
  Vocabulary(const Tokenizer& t, int32_t size) : tokenizer(t), trie(t, size) {
    for (const TokenId id : t.special().end_of_turn)
      if (id >= 0 && id < size) end_of_turn.push_back(id);
    for (TokenId id = 0; id < std::min(size, t.vocabulary_size()); ++id)
      if (t.is_special(id) && !is_end(id)) special.push_back(id);
  }
  bool is_end(TokenId id) const {
    return std::find(end_of_turn.begin(), end_of_turn.end(), id) != end_of_turn.end();
  }
  const Tokenizer& tokenizer;
  TokenTrie trie;
  std::vector<TokenId> end_of_turn;
  std::vector<TokenId> special;  // the others, ascending
};

}  // namespace constrain

class Grammar {
 public:
  std::shared_ptr<const constrain::Vocabulary> vocabulary;
  std::shared_ptr<constrain::MaskBudget> budget;
  constrain::Automaton automaton;
  std::vector<std::shared_ptr<constrain::MaskTable>> masks;  // by rule
  size_t own_bytes = 0;                                      // without the masks
  Grammar() = default;
  ~Grammar() {
    if (budget) budget->used -= own_bytes;
  }
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;
};

}  // namespace cairn::text
