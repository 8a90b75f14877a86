// Tokens found in the text before the model sees it: special tokens and those added to a vocabulary.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/tokenizer.h"

namespace cairn::text {

struct AddedToken {
  TokenId id = -1;
  std::string text = {};
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // and after it
  bool normalized = false;   // searched in normalised text (and normalised itself), not in the text as given
  std::string decoded =
      {};  // what decoding gives: the text, normalised when `normalized`; set by AddedTokens
};

class AddedTokens {
 public:
  // normalize: applied to the text of tokens with `normalized`; may be null. A later token with the same text
  // replaces the earlier one. Throws Error(invalid_file) for texts past 1024 bytes.
  void set(std::vector<AddedToken> tokens, const std::function<std::string(std::string_view)>& normalize,
           const std::string& file);

  // Cuts text at the tokens of one kind, calling plain(text, offset) and token(id) in order. Without
  // parse_special, special tokens stay plain text; so do those that touch a byte of `kept`. Empty pieces are
  // not reported.
  template <typename Plain, typename Found>
  void split(std::string_view text, bool normalized, bool parse_special, std::span<const ByteRange> kept,
             Plain&& plain, Found&& found) const {
    const ByteTrie& trie = normalized ? in_normalized_ : in_raw_;
    if (trie.empty()) {
      if (!text.empty()) plain(text, size_t{0});
      return;
    }
    size_t done = 0, at = 0;
    while (at < text.size()) {
      at = next_candidate(trie, text, at);
      if (at >= text.size()) break;
      const ByteTrie::Match match = trie.longest(text.substr(at));
      if (match.length == 0) {
        ++at;
        continue;
      }
      size_t begin = at, end = at + match.length;
      const AddedToken& token = tokens_[size_t(match.value)];
      if (token.special && touches(kept, begin, end)) {
        ++at;  // a token of the template may begin inside
        continue;
      }
      at = end;
      if ((token.special && !parse_special) || (token.single_word && !stands_alone(text, begin, end)))
        continue;
      strip(token, text, done, begin, end);
      if (done < begin) plain(text.substr(done, begin - done), done);
      found(token.id);
      done = end;
    }
    if (done < text.size()) plain(text.substr(done), done);
  }

  // Whether [begin, end) overlaps one of the ranges, which are in order.
  static bool touches(std::span<const ByteRange> ranges, size_t begin, size_t end);

  const AddedToken* find(TokenId id) const;
  const AddedToken* find(std::string_view text) const;
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  static size_t next_candidate(const ByteTrie&, std::string_view text, size_t at);
  static bool stands_alone(std::string_view text, size_t begin, size_t end);
  static void strip(const AddedToken&, std::string_view text, size_t done, size_t& begin, size_t& end);

  std::vector<AddedToken> tokens_;
  std::map<TokenId, size_t> by_id_;
  std::map<std::string, size_t, std::less<>> by_text_;
  ByteTrie in_raw_, in_normalized_;
};

}  // namespace cairn::text
