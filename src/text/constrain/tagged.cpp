// Free text with tagged parts: an Aho-Corasick machine over what may begin one (Aho and Corasick 1975), so
// that the text stays free until a beginning is complete, and is bound from there on. Special tokens are
// letters of their own: a beginning that spells one needs the token itself.
#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/constrain/notations.h"

namespace cairn::text::constrain {

namespace {

// A byte, or 256 + the id of a special token.
using Letter = int32_t;
constexpr Letter kFirstToken = 256;

class SpecialTexts {
 public:
  explicit SpecialTexts(const Tokenizer& tokenizer) {
    for (TokenId id = 0; id < tokenizer.vocabulary_size(); ++id)
      if (tokenizer.is_special(id) && !tokenizer.piece(id).empty()) ids_[tokenizer.piece(id)] = id;
  }
  std::vector<Letter> letters(std::string_view text) const {
    std::vector<Letter> out;
    for (size_t i = 0; i < text.size();) {
      size_t longest = 0;
      TokenId id = 0;
      // Texts that may start here begin with this character; the map is sorted.
      for (auto at = ids_.lower_bound(text.substr(i, 1)); at != ids_.end() && at->first[0] == text[i]; ++at)
        if (text.substr(i).starts_with(at->first) && at->first.size() > longest)
          longest = at->first.size(), id = at->second;
      out.push_back(longest ? kFirstToken + id : Letter(uint8_t(text[i])));
      i += std::max<size_t>(longest, 1);
    }
    return out;
  }

 private:
  std::map<std::string, TokenId, std::less<>> ids_;
};

NodeId written(Syntax& syntax, const std::vector<Letter>& letters) {
  std::vector<NodeId> nodes;
  for (const Letter letter : letters)
    nodes.push_back(letter < kFirstToken ? syntax.text(std::string(1, char(letter)))
                                         : syntax.token(letter - kFirstToken));
  return syntax.sequence(std::move(nodes));
}

struct TrieNode {
  std::map<Letter, int32_t> children;
  int32_t fallback = 0;          // the longest proper suffix that is a node, too
  std::vector<size_t> complete;  // the tags whose beginning ends here
};

// The beginnings as a trie with fallbacks, parents before children.
std::vector<TrieNode> beginnings_trie(const std::vector<std::vector<Letter>>& beginnings) {
  std::vector<TrieNode> trie(1);
  for (size_t t = 0; t < beginnings.size(); ++t) {
    int32_t at = 0;
    for (const Letter letter : beginnings[t]) {
      const auto [found, fresh] = trie[size_t(at)].children.try_emplace(letter, int32_t(trie.size()));
      at = found->second;
      if (fresh) trie.emplace_back();
    }
    trie[size_t(at)].complete.push_back(t);
  }
  std::vector<int32_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    const int32_t parent = order[i];
    const auto children = trie[size_t(parent)].children;
    for (const auto& [letter, child] : children) {
      int32_t at = parent;
      while (at != 0) {
        at = trie[size_t(at)].fallback;
        const auto& next = trie[size_t(at)].children;
        if (const auto found = next.find(letter); found != next.end()) {
          trie[size_t(child)].fallback = found->second;
          break;
        }
      }
      const auto& inherited = trie[size_t(trie[size_t(child)].fallback)].complete;
      auto& own = trie[size_t(child)].complete;
      own.insert(own.end(), inherited.begin(), inherited.end());
      order.push_back(child);
    }
  }
  return trie;
}

int32_t follow(const std::vector<TrieNode>& trie, int32_t node, Letter letter) {
  for (;;) {
    const auto& children = trie[size_t(node)].children;
    if (const auto found = children.find(letter); found != children.end()) return found->second;
    if (node == 0) return 0;
    node = trie[size_t(node)].fallback;
  }
}

}  // namespace

RuleId add_tagged(Syntax& syntax, const Tokenizer& tokenizer,
                  const std::vector<GrammarCompiler::Tagged>& tags, bool must_start_with_one,
                  bool may_repeat) {
  constexpr size_t kMostTags = 1024, kMostLetters = 16'384;
  if (tags.empty()) fail(ErrorKind::invalid_argument, "there is no tag");
  if (tags.size() > kMostTags)
    fail(ErrorKind::invalid_argument, "there are {} tags; at most {} are read", tags.size(), kMostTags);
  const SpecialTexts special(tokenizer);
  const auto& ends = tokenizer.special().end_of_turn;
  std::vector<std::vector<Letter>> beginnings;
  std::vector<RuleId> rules;  // of body and end
  std::map<std::pair<int, std::string>, RuleId> bodies;
  size_t letters = 0;
  for (size_t t = 0; t < tags.size(); ++t) {
    const auto& tag = tags[t];
    if (tag.begin.empty()) fail(ErrorKind::invalid_argument, "tag {}: the text that begins it is empty", t);
    beginnings.push_back(special.letters(tag.begin));
    for (const Letter letter : beginnings.back())
      if (std::find(ends.begin(), ends.end(), letter - kFirstToken) != ends.end())
        fail(ErrorKind::invalid_argument,
             "tag {}: what begins it, \"{}\", holds the token \"{}\", which ends every answer: none could go "
             "on "
             "after it",
             t, tag.begin, tokenizer.piece(letter - kFirstToken));
    letters += beginnings.back().size();
    if (letters > kMostLetters) fail(ErrorKind::invalid_argument, "the beginnings of tags are too long");
    const auto [body, fresh] = bodies.try_emplace({int(tag.body.kind), tag.body.text}, -1);
    if (fresh) {
      try {
        body->second = add_source(syntax, tag.body);
      } catch (const Error& error) {
        fail(error.kind(), "tag {}: {}", t, error.what());
      }
    }
    rules.push_back(syntax.rule("tag"));
    syntax.define(rules.back(),
                  syntax.sequence({syntax.call(body->second), written(syntax, special.letters(tag.end))}));
  }
  const RuleId root = syntax.rule("tagged");

  if (must_start_with_one) {
    std::vector<NodeId> nodes;
    for (size_t t = 0; t < tags.size(); ++t)
      nodes.push_back(syntax.sequence({written(syntax, beginnings[t]), syntax.call(rules[t])}));
    const NodeId one = syntax.choice(std::move(nodes));
    constexpr uint32_t kMostSpace = 4;
    CodePoints blank('\t', '\n');
    blank.add(' ', ' ');
    blank.add('\r', '\r');
    const NodeId more = syntax.sequence({syntax.repeat(syntax.characters(blank), 0, kMostSpace), one});
    syntax.define(root, may_repeat ? syntax.sequence({one, syntax.repeat(more, 0, kUnbounded)}) : one);
    return root;
  }

  const auto trie = beginnings_trie(beginnings);
  Machine m;
  for (const TrieNode& node : trie) m.states[size_t(m.add())].final = node.complete.empty();
  const int32_t done = m.add();
  m.states[size_t(done)].final = true;
  std::vector<Letter> tokens;
  for (const auto& beginning : beginnings)
    for (const Letter letter : beginning)
      if (letter >= kFirstToken) tokens.push_back(letter);
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (size_t n = 0; n < trie.size(); ++n) {
    auto& state = m.states[n];
    const auto token_jump = [&](int32_t id, int32_t to) {
      state.jumps.push_back({Machine::Kind::token, id, to});
    };
    if (!trie[n].complete.empty()) {
      // Bound now; only a longer beginning may still be meant.
      for (const size_t t : trie[n].complete)
        state.jumps.push_back({Machine::Kind::call, rules[t], may_repeat ? 0 : done});
      for (const auto& [letter, child] : trie[n].children) {
        if (letter >= kFirstToken)
          token_jump(letter - kFirstToken, child);
        else
          state.bytes.push_back({uint8_t(letter), uint8_t(letter), child});
      }
      continue;
    }
    for (int byte = 0; byte < 256; ++byte) {
      const int32_t to = follow(trie, int32_t(n), byte);
      if (!state.bytes.empty() && state.bytes.back().to == to)
        state.bytes.back().high = uint8_t(byte);
      else
        state.bytes.push_back({uint8_t(byte), uint8_t(byte), to});
    }
    for (const Letter letter : tokens) token_jump(letter - kFirstToken, follow(trie, int32_t(n), letter));
    token_jump(Machine::kOtherSpecial, 0);
  }
  syntax.define(root, syntax.machine(std::move(m)));
  return root;
}

}  // namespace cairn::text::constrain
