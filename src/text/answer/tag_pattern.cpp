#include "text/answer/tag_pattern.h"

namespace cairn::text::answer {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

Match match_tag(std::string_view pattern, std::string_view text, bool last, size_t& length) {
  const Match cut = last ? Match::no : Match::more;
  size_t at = 0;
  for (char c : pattern) {
    if (c == '~') {
      const size_t from = at;
      while (at < text.size() && is_space(text[at]))
        if (++at - from > kMostSpace) return Match::no;
      if (at == text.size() && !last) return Match::more;
      continue;
    }
    if (at == text.size()) return cut;
    if (text[at] != c) return Match::no;
    ++at;
  }
  length = at;
  return Match::yes;
}

Match take_tag(std::string_view pattern, Cursor& in) {
  if (pattern.empty()) return Match::no;
  size_t at = in.at;
  while (at < in.text.size() && is_space(in.text[at]))
    if (++at - in.at > kMostSpace) return Match::no;
  if (at == in.text.size()) return in.last ? Match::no : Match::more;
  size_t length = 0;
  const Match match = match_tag(pattern, in.text.substr(at), in.last, length);
  if (match == Match::yes) in.at = at + length;
  return match;
}

bool skip_space(Cursor& in) {
  while (in.at < in.text.size() && is_space(in.text[in.at])) ++in.at;
  return in.at < in.text.size();
}

Found find_tag(std::string_view pattern, std::string_view text, size_t from, bool last) {
  for (size_t at = from; at < text.size(); ++at) {
    at = text.find(pattern.front(), at);
    if (at == std::string_view::npos) break;
    size_t length = 0;
    const Match match = match_tag(pattern, text.substr(at), last, length);
    if (match != Match::no) return {match, at, length};
  }
  return {Match::no, text.size(), 0};
}

}  // namespace cairn::text::answer
