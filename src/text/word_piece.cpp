#include "text/word_piece.h"

#include "base/error.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

[[noreturn]] void fail_unknown(std::string_view word) {
  fail(ErrorKind::invalid_argument, "the vocabulary lacks the word \"{}\" and has no unknown token",
       word.substr(0, 64));
}

}  // namespace

WordPiece::WordPiece(const std::vector<std::pair<TokenId, std::string_view>>& tokens, TokenId unk,
                     std::string_view prefix, size_t longest_word, const std::string& file)
    : unk_(unk), longest_word_(longest_word) {
  vocabulary_.reserve(tokens.size());
  for (const auto& [id, text] : tokens) {
    check_token_id(id, tokens.size(), file);
    vocabulary_.set(id, text);
    if (text.size() > 4096) continue;  // longer than any word that is split
    first_.insert(text, id);
    if (text.starts_with(prefix)) continuing_.insert(text.substr(prefix.size()), id);
  }
}

void WordPiece::encode(std::string_view word, std::vector<TokenId>& out) const {
  const auto unknown = [&] {
    if (unk_ < 0) fail_unknown(word);
    out.push_back(unk_);
  };
  size_t characters = 0;
  for (char c : word) characters += !is_continuation(c);
  if (characters > longest_word_) return unknown();
  const size_t before = out.size();
  for (size_t start = 0; start < word.size();) {
    const ByteTrie::Match match = (start == 0 ? first_ : continuing_).longest(word.substr(start));
    if (match.length == 0) {
      out.resize(before);
      return unknown();
    }
    out.push_back(match.value);
    start += match.length;
  }
}

WordLevel::WordLevel(const std::vector<std::pair<TokenId, std::string_view>>& tokens, TokenId unk,
                     const std::string& file)
    : unk_(unk) {
  vocabulary_.reserve(tokens.size());
  for (const auto& [id, text] : tokens) {
    check_token_id(id, tokens.size(), file);
    vocabulary_.set(id, text);
  }
}

void WordLevel::encode(std::string_view word, std::vector<TokenId>& out) const {
  TokenId id = vocabulary_.find(word);
  if (id < 0) id = unk_;
  if (id < 0) fail_unknown(word);
  out.push_back(id);
}

}  // namespace cairn::text
