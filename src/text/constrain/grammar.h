// Constrained output: what an answer may look like, compiled for one tokenizer, and which tokens may come
// next.
//
// JSON Schema (drafts 7 and 2020-12), regular expressions, GBNF, a subset of Lark, and text with tagged parts
// all become one automaton over bytes; masks over the vocabulary come from walking a trie of its tokens. See
// docs/constrained-output.md for what each notation covers, and what is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::text {

// Immutable; shared by threads and requests. Masks that it computed once are kept inside.
class Grammar;
using GrammarPtr = std::shared_ptr<const Grammar>;

struct GrammarSource {
  enum class Kind { json_schema, json_object, regex, gbnf, lark };
  Kind kind = Kind::json_object;
  std::string text;  // the schema as JSON text, the pattern, the grammar; empty for json_object
};

// Compiles, and keeps what it compiled (bounded by bytes, least recently used goes first). Thread-safe. One
// per loaded model; the tokenizer must outlive it and its grammars.
//
// All throw Error(invalid_argument), or Error(unsupported) where the notation allows something that is not
// executed here: never is a part of it ignored. The sentence names the place: a JSON pointer for schemas
// ("#/properties/a/uniqueItems: ..."), line and column for grammars, the offset for regular expressions.
// Time, memory and depth are bounded whatever the text.
class GrammarCompiler {
 public:
  // vocabulary_size: of the logits; ids that the tokenizer does not know are never allowed.
  GrammarCompiler(const Tokenizer&, int32_t vocabulary_size, size_t cache_bytes = 64u << 20);
  ~GrammarCompiler();
  GrammarCompiler(const GrammarCompiler&) = delete;
  GrammarCompiler& operator=(const GrammarCompiler&) = delete;

  GrammarPtr json_schema(const nlohmann::ordered_json& schema);
  GrammarPtr json_object();                    // any JSON object
  GrammarPtr regex(std::string_view pattern);  // of the whole answer
  GrammarPtr gbnf(std::string_view grammar);   // llama.cpp's notation; starts at `root`
  GrammarPtr lark(std::string_view grammar);   // starts at `start`
  GrammarPtr compile(const GrammarSource&);

  // Free text, and from `begin` on `body` and then `end`: tool calls. Where begin or end spell special tokens
  // of the tokenizer, those tokens are meant; other special tokens may come in the free text, as in any
  // answer.
  struct Tagged {
    std::string begin;  // not empty, and without tokens that end an answer
    GrammarSource body;
    std::string end;
  };
  // must_start_with_one: no free text at all, and one of them before the answer may end. may_repeat: further
  // ones may follow, with free text between them (white space only if must_start_with_one).
  GrammarPtr tagged(const std::vector<Tagged>&, bool must_start_with_one, bool may_repeat);

  struct Stats {
    size_t grammars = 0;  // kept
    size_t bytes = 0;     // of them and their masks
    uint64_t compiled = 0, reused = 0;
  };
  Stats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Where one answer stands. Not thread-safe; fill_mask may run on another thread than accept, never at once.
// Grammars that can be read in very many ways at once make fill_mask and accept throw Error(invalid_argument)
// after a bounded effort; the answer is then lost, nothing else.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(GrammarPtr);
  ~GrammarMatcher();
  GrammarMatcher(GrammarMatcher&&) noexcept;
  GrammarMatcher& operator=(GrammarMatcher&&) noexcept;

  // bits: one per token id, 1: may come; (vocabulary_size + 31) / 32 words. End-of-turn tokens may come where
  // the grammar may end. After an end-of-turn token, only those.
  void fill_mask(std::span<uint32_t> bits);
  bool accept(TokenId);  // false and unchanged when it does not fit
  bool accept_text(
      std::string_view);      // bytes, as one step of the history; for tests and for prefilled answers
  bool at_end() const;        // may end here
  bool must_end() const;      // nothing but the end may follow
  void rollback(int tokens);  // takes back that many accepted ones, at most all; free
  int accepted() const;       // how many can be taken back
  // A draft of what must follow: tokens whose text is forced, though not its division into tokens. Empty when
  // the next byte is open.
  std::vector<TokenId> forced();
  size_t bytes() const;  // memory held

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn::text
