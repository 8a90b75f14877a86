#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

constexpr size_t kLongestToken = 1024;  // keeps the search linear in the text

// The code point that ends before `end`; end > 0.
uint32_t code_point_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && is_continuation(text[begin])) --begin;
  return decode_utf8(text.substr(begin, end - begin)).value;
}

}  // namespace

void AddedTokens::set(std::vector<AddedToken> tokens,
                      const std::function<std::string(std::string_view)>& normalize,
                      const std::string& file) {
  for (AddedToken& token : tokens) {
    token.decoded = token.normalized && normalize ? normalize(token.text) : token.text;
    if (token.text.size() > kLongestToken)
      fail(ErrorKind::invalid_file, "{}: added token {} has {} bytes; at most {} are supported", file,
           token.id, token.text.size(), kLongestToken);
    if (const auto known = by_text_.find(token.text); known != by_text_.end()) {
      by_id_.erase(tokens_[known->second].id);
      tokens_[known->second] = token;
      by_id_[token.id] = known->second;
      continue;
    }
    by_text_[token.text] = tokens_.size();
    by_id_[token.id] = tokens_.size();
    tokens_.push_back(std::move(token));
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    (token.normalized ? in_normalized_ : in_raw_).insert(token.decoded, int32_t(i));
  }
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view text) const {
  const auto found = by_text_.find(text);
  return found == by_text_.end() ? nullptr : &tokens_[found->second];
}

bool AddedTokens::touches(std::span<const ByteRange> ranges, size_t begin, size_t end) {
  const auto first = std::partition_point(ranges.begin(), ranges.end(),
                                          [&](const ByteRange& range) { return range.end <= begin; });
  return first != ranges.end() && first->begin < end;
}

size_t AddedTokens::next_candidate(const ByteTrie& trie, std::string_view text, size_t at) {
  while (at < text.size() && !trie.starts(text[at])) ++at;
  return at;
}

bool AddedTokens::stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool before = begin > 0 && is_word(code_point_before(text, begin));
  const bool after = end < text.size() && is_word(decode_utf8(text.substr(end)).value);
  return !before && !after;
}

void AddedTokens::strip(const AddedToken& token, std::string_view text, size_t done, size_t& begin,
                        size_t& end) {
  if (token.lstrip) {
    while (begin > done) {
      const uint32_t c = code_point_before(text, begin);
      if (!is_white_space(c)) break;
      begin -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
    }
  }
  if (token.rstrip) {
    while (end < text.size()) {
      const CodePoint c = decode_utf8(text.substr(end));
      if (!is_white_space(c.value)) break;
      end += c.bytes;
    }
  }
}

}  // namespace cairn::text
