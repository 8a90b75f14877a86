// GBNF, the notation of llama.cpp: rules "name ::= ...", "texts" and [classes] over characters, ( ) | * + ?
// {m,n} and . for any character. A rule may go on in the next line wherever no other rule can begin there.
// Not supported: <tokens>.
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/constrain/notations.h"
#include "text/utf8.h"

namespace cairn::text::constrain {

namespace {

class GbnfParser {
 public:
  GbnfParser(Syntax& syntax, std::string_view text) : syntax_(syntax), text_(text) {
    if (!is_valid_utf8(text))
      fail(ErrorKind::invalid_argument, "line 1, column 1: the grammar is not valid UTF-8");
  }

  RuleId parse() {
    for (skip(); at_ < text_.size(); skip()) rule();
    for (const auto& [name, known] : rules_)
      if (!known.defined) wrong(known.first_use, "the rule " + name + " is used here but not defined");
    const auto root = rules_.find("root");
    if (root == rules_.end()) wrong(text_.size(), "there is no rule named root");
    return root->second.rule;
  }

 private:
  struct Known {
    RuleId rule;
    size_t first_use;
    bool defined = false;
  };

  [[noreturn]] void wrong(size_t at, const std::string& what,
                          ErrorKind kind = ErrorKind::invalid_argument) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < std::min(at, text_.size()); ++i) {
      ++column;
      if (text_[i] == '\n') ++line, column = 1;
    }
    fail(kind, "line {}, column {}: {}", line, column, what);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  static bool in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  // White space, line ends and comments.
  void skip() {
    while (at_ < text_.size()) {
      if (peek() == '#')
        while (at_ < text_.size() && peek() != '\n') ++at_;
      else if (peek() == ' ' || peek() == '\t' || peek() == '\r' || peek() == '\n')
        ++at_;
      else
        break;
    }
  }
  std::string name() {
    const size_t begin = at_;
    while (at_ < text_.size() && in_name(peek())) ++at_;
    if (at_ == begin) wrong(at_, "the name of a rule is missing");
    return std::string(text_.substr(begin, at_ - begin));
  }
  bool rule_begins_here() {
    const size_t before = at_;
    while (at_ < text_.size() && in_name(peek())) ++at_;
    const bool named = at_ > before;
    skip();
    const bool is = named && text_.substr(at_).starts_with("::=");
    at_ = before;
    return is;
  }
  Known& known(const std::string& rule_name, size_t at) {
    const auto [found, fresh] = rules_.try_emplace(rule_name, Known{-1, at});
    if (fresh) found->second.rule = syntax_.rule(rule_name);
    return found->second;
  }

  void rule() {
    const size_t begin = at_;
    const std::string rule_name = name();
    skip();
    if (!text_.substr(at_).starts_with("::=")) wrong(at_, "::= is missing after " + rule_name);
    at_ += 3;
    Known& entry = known(rule_name, begin);
    if (entry.defined) wrong(begin, "the rule " + rule_name + " is defined twice");
    entry.defined = true;
    const RuleId id = entry.rule;
    syntax_.define(id, alternatives());
    skip();
    if (at_ < text_.size() && !rule_begins_here()) wrong(at_, "a rule was expected here");
  }

  NodeId alternatives() {
    if (++depth_ > kDeepest) wrong(at_, "groups are nested too deeply");
    std::vector<NodeId> nodes;
    do {
      nodes.push_back(sequence());
    } while (take('|'));
    --depth_;
    return syntax_.choice(std::move(nodes));
  }

  NodeId sequence() {
    std::vector<NodeId> nodes;
    for (;;) {
      skip();
      const char c = peek();
      if (at_ >= text_.size() || c == '|' || c == ')') break;
      if (in_name(c) && rule_begins_here()) break;
      const size_t begin = at_;
      NodeId node = 0;
      if (c == '"') {
        node = literal();
      } else if (c == '[') {
        node = character_class();
      } else if (c == '.') {
        ++at_;
        node = syntax_.characters(CodePoints::all());
      } else if (c == '(') {
        ++at_;
        node = alternatives();
        if (!take(')')) wrong(begin, "this ( has no )");
      } else if (in_name(c)) {
        const std::string rule_name = name();
        node = syntax_.call(known(rule_name, begin).rule);
      } else if (c == '<' || c == '!') {
        wrong(at_, "tokens in a grammar are not supported", ErrorKind::unsupported);
      } else {
        wrong(at_, "this character means nothing here");
      }
      nodes.push_back(repeated(node));
    }
    return syntax_.sequence(std::move(nodes));
  }

  NodeId repeated(NodeId node) {
    for (;;) {
      const size_t begin = at_;
      while (peek() == ' ' || peek() == '\t') ++at_;
      uint32_t minimum = 0, maximum = kUnbounded;
      if (take('*')) {
      } else if (take('+')) {
        minimum = 1;
      } else if (take('?')) {
        maximum = 1;
      } else if (take('{')) {
        const auto first = number();
        if (!first) wrong(at_, "a number is missing");
        minimum = maximum = *first;
        if (take(',')) maximum = number().value_or(kUnbounded);
        if (!take('}')) wrong(at_, "} is missing");
        if (minimum > maximum) wrong(begin, "the numbers of this repeat are out of order");
      } else {
        at_ = begin;
        return node;
      }
      node = syntax_.repeat(node, minimum, maximum);
    }
  }

  std::optional<uint32_t> number() {
    while (peek() == ' ') ++at_;
    constexpr uint64_t kMost = 2'000'000'000;
    const size_t begin = at_;
    uint64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + uint64_t(text_[at_++] - '0');
      if (value > kMost) wrong(begin, "the repeat is larger than 2000000000");
    }
    const bool found = at_ > begin;
    while (peek() == ' ') ++at_;
    if (!found) return std::nullopt;
    return uint32_t(value);
  }

  uint32_t hex(int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) wrong(at_, "hexadecimal digits are missing");
      value = value << 4 | uint32_t(digit);
    }
    if (value > kLastCodePoint || (value >= 0xd800 && value <= 0xdfff))
      wrong(at_, "there is no such character");
    return value;
  }

  uint32_t character(size_t begin) {
    if (at_ >= text_.size() || peek() == '\n') wrong(begin, "this does not end in its line");
    if (!take('\\')) {
      const auto c = decode_utf8(text_.substr(at_));
      at_ += c.bytes;
      return c.value;
    }
    const char c = peek();
    ++at_;
    switch (c) {
      case 'n': return '\n';
      case 't': return '\t';
      case 'r': return '\r';
      case 'x': return hex(2);
      case 'u': return hex(4);
      case 'U': return hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^': return uint32_t(c);
      default: wrong(at_ - 2, "this escape is not known");
    }
  }

  NodeId literal() {
    const size_t begin = at_++;
    std::string bytes;
    while (peek() != '"' || at_ >= text_.size()) append_utf8(bytes, character(begin));
    ++at_;
    return syntax_.text(bytes);
  }

  NodeId character_class() {
    const size_t begin = at_++;
    const bool negated = take('^');
    CodePoints set;
    while (peek() != ']' || at_ >= text_.size()) {
      const uint32_t low = character(begin);
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const uint32_t high = character(begin);
        if (high < low) wrong(begin, "a range of this class is out of order");
        set.add(low, high);
      } else {
        set.add(low, low);
      }
    }
    ++at_;
    return syntax_.characters(negated ? set.complement() : set);
  }

  Syntax& syntax_;
  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::map<std::string, Known> rules_;
};

}  // namespace

RuleId add_gbnf(Syntax& syntax, std::string_view grammar) { return GbnfParser(syntax, grammar).parse(); }

}  // namespace cairn::text::constrain
