// For tests only: checks of masks against the definition, and random texts of a grammar.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "text/constrain/grammar.h"
#include "text/constrain/piece_tokenizer_testing.h"

namespace cairn::text::testing {

inline bool matches(const GrammarPtr& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  return matcher.accept_text(text) && matcher.at_end();
}

inline bool allowed(std::span<const uint32_t> bits, TokenId id) {
  return bits[size_t(id) / 32] >> (id % 32) & 1;
}

// The definition: a token may come when a copy of the matcher accepts it. Compares every bit.
inline void expect_exact_mask(GrammarMatcher& matcher, const Tokenizer& tokenizer, const std::string& where) {
  const int32_t size = tokenizer.vocabulary_size();
  std::vector<uint32_t> bits(size_t(size + 31) / 32);
  matcher.fill_mask(bits);
  int wrong = 0;
  for (TokenId id = 0; id < size && wrong < 5; ++id) {
    const bool fits = matcher.accept(id);
    if (fits) matcher.rollback(1);
    if (fits != allowed(bits, id)) {
      ++wrong;
      ADD_FAILURE() << where << ": token " << id << " '" << tokenizer.piece(id) << "' is "
                    << (fits ? "missing in" : "wrongly in") << " the mask";
    }
  }
}

// Takes random allowed tokens until the end, or until `tokens` were taken; returns the text. Once past half
// of them it prefers what ends or closes, so that grammars with recursion come to an end.
inline std::string random_text(GrammarMatcher& matcher, const Tokenizer& tokenizer, std::mt19937& random,
                               int tokens, bool& ended) {
  const int32_t size = tokenizer.vocabulary_size();
  std::vector<uint32_t> bits(size_t(size + 31) / 32);
  std::string text;
  ended = false;
  for (int i = 0; i < tokens; ++i) {
    matcher.fill_mask(bits);
    std::vector<TokenId> all;
    for (TokenId id = 0; id < size; ++id)
      if (allowed(bits, id) && !tokenizer.is_special(id)) all.push_back(id);
    if (matcher.at_end() && (all.empty() || random() % 8 == 0 || i > tokens / 2)) {
      ended = true;
      return text;
    }
    if (all.empty()) {
      ADD_FAILURE() << "no token may follow " << text;
      return text;
    }
    TokenId id = all[random() % all.size()];
    if (i > tokens / 2)
      for (const std::string_view closing : {"\"", "}", "]", ")", ";", "\n"})
        for (const TokenId other : all)
          if (tokenizer.piece(other) == closing) id = other;
    if (!matcher.accept(id)) {
      ADD_FAILURE() << "the mask allows token " << id << " after " << text;
      return text;
    }
    text += tokenizer.piece(id);
  }
  return text;
}

}  // namespace cairn::text::testing
