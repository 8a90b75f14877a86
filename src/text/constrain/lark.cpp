// A subset of Lark's grammars: rules and TERMINALS with | ( ) [ ] ? * + ~n ~n..m, "texts"i, /patterns/is,
// "a".."z", aliases and priorities (which mean nothing here), %ignore, %import common.NAME. What %ignore
// names may stand at the start and after every terminal of a rule.
//
// There is no separate lexer: a text fits when its characters can be read by the rules in any way, where Lark
// would insist on the longest terminal. Patterns are ECMAScript's (pattern.h), \d and \w ASCII. Not
// supported: templates, %declare, %override, %extend, imports of other files.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "text/constrain/notations.h"
#include "text/constrain/pattern.h"
#include "text/utf8.h"

namespace cairn::text::constrain {

namespace {

// Lark's library of terminals, as patterns.
const std::map<std::string, std::string, std::less<>>& common_terminals() {
  static const std::map<std::string, std::string, std::less<>> known = {
      {"DIGIT", "[0-9]"},
      {"HEXDIGIT", "[0-9A-Fa-f]"},
      {"INT", "[0-9]+"},
      {"SIGNED_INT", "[+-]?[0-9]+"},
      {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"},
      {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
      {"SIGNED_FLOAT", "[+-]?(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"},
      {"NUMBER", "(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
      {"SIGNED_NUMBER", "[+-]?(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
      {"ESCAPED_STRING", "\"(?:[^\"\\\\\\n]|\\\\[^\\n])*\""},
      {"LCASE_LETTER", "[a-z]"},
      {"UCASE_LETTER", "[A-Z]"},
      {"LETTER", "[A-Za-z]"},
      {"WORD", "[A-Za-z]+"},
      {"CNAME", "[A-Za-z_][0-9A-Za-z_]*"},
      {"WS_INLINE", "[ \\t]+"},
      {"WS", "[ \\t\\f\\r\\n]+"},
      {"CR", "\\r"},
      {"LF", "\\n"},
      {"NEWLINE", "(?:\\r?\\n)+"},
      {"SH_COMMENT", "#[^\\n]*"},
      {"CPP_COMMENT", "//[^\\n]*"},
      {"C_COMMENT", "/\\*(?:[^*]|\\*+[^*/])*\\*+/"},
      {"SQL_COMMENT", "--[^\\n]*"},
  };
  return known;
}

class LarkParser {
 public:
  LarkParser(Syntax& syntax, std::string_view text) : syntax_(syntax), text_(text) {
    if (!is_valid_utf8(text))
      fail(ErrorKind::invalid_argument, "line 1, column 1: the grammar is not valid UTF-8");
    ignored_ = syntax_.rule("ignored");
  }

  RuleId parse() {
    for (skip_lines(); more(); skip_lines()) statement();
    for (const auto& [name, known] : names_)
      if (!known.defined) wrong(known.first_use, name + " is used here but not defined");
    const auto start = names_.find("start");
    if (start == names_.end()) wrong(text_.size(), "there is no rule named start");
    syntax_.define(ignored_, syntax_.repeat(syntax_.choice(ignore_), 0, kUnbounded));
    const RuleId root = syntax_.rule("lark");
    syntax_.define(root, syntax_.sequence({syntax_.call(ignored_), syntax_.call(start->second.rule)}));
    return root;
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
  [[noreturn]] void refuse(size_t at, const std::string& what) const {
    wrong(at, what + " is not supported", ErrorKind::unsupported);
  }
  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }
  bool take(std::string_view s) {
    if (!text_.substr(at_).starts_with(s)) return false;
    at_ += s.size();
    return true;
  }
  static bool upper(char c) { return c >= 'A' && c <= 'Z'; }
  static bool lower(char c) { return c >= 'a' && c <= 'z'; }
  static bool digit(char c) { return c >= '0' && c <= '9'; }
  static bool in_name(char c) { return upper(c) || lower(c) || digit(c) || c == '_'; }
  static bool is_terminal(const std::string& name) { return upper(name[name[0] == '_' && name.size() > 1]); }

  void skip_blanks() {
    for (;;) {
      if (peek() == ' ' || peek() == '\t' || peek() == '\r') {
        ++at_;
      } else if (text_.substr(at_).starts_with("//") || peek() == '#') {
        while (more() && peek() != '\n') ++at_;
      } else {
        return;
      }
    }
  }
  void skip_lines() {
    for (skip_blanks(); peek() == '\n' && more(); skip_blanks()) ++at_;
  }
  // Line ends count only outside of groups, and not before a | that goes on.
  void skip() {
    skip_blanks();
    if (peek() != '\n') return;
    const size_t before = at_;
    skip_lines();
    if (depth_ == 1 && (peek() != '|' || !more())) at_ = before;
  }

  std::string name() {
    const size_t begin = at_;
    while (more() && in_name(peek())) ++at_;
    if (at_ == begin || digit(text_[begin])) wrong(begin, "a name was expected here");
    return std::string(text_.substr(begin, at_ - begin));
  }
  Known& known(const std::string& which, size_t at) {
    const auto [found, fresh] = names_.try_emplace(which, Known{-1, at});
    if (fresh) found->second.rule = syntax_.rule(which);
    return found->second;
  }
  void define(const std::string& which, size_t at, NodeId node) {
    Known& entry = known(which, at);
    if (entry.defined) wrong(at, which + " is defined twice");
    entry.defined = true;
    syntax_.define(entry.rule, node);
  }

  void statement() {
    const size_t begin = at_;
    if (take("%import")) {
      import(begin);
    } else if (take("%ignore")) {
      in_terminal_ = true;
      ignore_.push_back(alternatives());
    } else if (peek() == '%') {
      refuse(begin, "this directive");
    } else {
      if (!take("?")) take("!");
      take("!");
      const std::string which = name();
      if (peek() == '{') refuse(at_, "a template");
      if (take("."))
        while (digit(peek()) || peek() == '-') ++at_;
      skip_blanks();
      if (!take(":")) wrong(at_, ": is missing after " + which);
      in_terminal_ = is_terminal(which);
      define(which, begin, alternatives());
    }
    skip_blanks();
    if (more() && peek() != '\n') wrong(at_, "this means nothing here");
  }

  void import(size_t begin) {
    skip_blanks();
    if (!take("common")) refuse(begin, "an import from anything but common");
    std::vector<std::string> wanted;
    std::string alias;
    if (take(".")) {
      wanted.push_back(name());
      skip_blanks();
      if (take("->")) {
        skip_blanks();
        alias = name();
      }
    } else {
      skip_blanks();
      if (!take("(")) wrong(at_, "( or a name is missing");
      do {
        skip_lines();
        wanted.push_back(name());
        skip_lines();
      } while (take(","));
      if (!take(")")) wrong(at_, ") is missing");
    }
    for (const auto& which : wanted) {
      const auto found = common_terminals().find(which);
      if (found == common_terminals().end()) refuse(begin, "common." + which);
      define(alias.empty() ? which : alias, begin, whole_pattern(syntax_, found->second));
    }
  }

  NodeId alternatives() {
    if (++depth_ > kDeepest) wrong(at_, "groups are nested too deeply");
    std::vector<NodeId> nodes;
    skip();
    take("|");  // a first one that stands on its own line
    do {
      nodes.push_back(sequence());
    } while (take("|"));
    --depth_;
    return syntax_.choice(std::move(nodes));
  }

  NodeId sequence() {
    std::vector<NodeId> nodes;
    for (;;) {
      skip();
      const char c = peek();
      if (!more() || c == '\n' || c == '|' || c == ')' || c == ']') break;
      if (take("->")) {
        skip();
        name();
        continue;
      }
      nodes.push_back(repeated(item()));
    }
    return syntax_.sequence(std::move(nodes));
  }

  // A terminal inside a rule: what is ignored may follow.
  NodeId terminal(NodeId node) {
    return in_terminal_ ? node : syntax_.sequence({node, syntax_.call(ignored_)});
  }

  NodeId item() {
    const size_t begin = at_;
    const char c = peek();
    if (c == '(' || c == '[') {
      ++at_;
      const NodeId inner = alternatives();
      skip();
      if (!take(c == '(' ? ")" : "]")) wrong(begin, std::string("this ") + c + " is not closed");
      return c == '(' ? inner : syntax_.optional(inner);
    }
    if (c == '"') {
      const std::string low = literal();
      if (take("..")) {
        if (peek() != '"') wrong(at_, "the end of the range is missing");
        const std::string high = literal();
        const auto first = decode_utf8(low.empty() ? "\xff" : low),
                   last = decode_utf8(high.empty() ? "\xff" : high);
        if (first.bytes != low.size() || last.bytes != high.size() || first.value > last.value ||
            last.value == kInvalid)
          wrong(begin, "a range is from one character up to another");
        return terminal(syntax_.characters(CodePoints(first.value, last.value)));
      }
      if (!take("i")) return terminal(syntax_.text(low));
      std::vector<NodeId> nodes;
      for (std::string_view rest = low; !rest.empty();) {
        const auto character = decode_utf8(rest);
        CodePoints set(character.value, character.value);
        set.add_other_case();
        nodes.push_back(syntax_.characters(std::move(set)));
        rest.remove_prefix(character.bytes);
      }
      return terminal(syntax_.sequence(std::move(nodes)));
    }
    if (c == '/') return terminal(pattern());
    if (in_name(c)) {
      const std::string which = name();
      if (peek() == '{') refuse(at_, "a template");
      const bool is = is_terminal(which);
      if (in_terminal_ && !is) wrong(begin, "a terminal cannot use the rule " + which);
      const NodeId node = syntax_.call(known(which, begin).rule);
      return is ? terminal(node) : node;
    }
    wrong(begin, "this means nothing here");
  }

  NodeId repeated(NodeId node) {
    for (;;) {
      if (take("*")) {
        node = syntax_.repeat(node, 0, kUnbounded);
      } else if (take("+")) {
        node = syntax_.repeat(node, 1, kUnbounded);
      } else if (peek() == '?') {
        ++at_;
        node = syntax_.repeat(node, 0, 1);
      } else {
        const size_t before = at_;
        skip_blanks();
        if (!take("~")) {
          at_ = before;
          return node;
        }
        skip_blanks();
        const uint32_t minimum = number();
        skip_blanks();
        uint32_t maximum = minimum;
        if (take("..")) {
          skip_blanks();
          maximum = number();
        }
        if (minimum > maximum) wrong(before, "the numbers of this repeat are out of order");
        node = syntax_.repeat(node, minimum, maximum);
      }
    }
  }

  uint32_t number() {
    const size_t begin = at_;
    uint64_t value = 0;
    while (digit(peek())) {
      value = value * 10 + uint64_t(text_[at_++] - '0');
      if (value > 2'000'000'000) wrong(begin, "the repeat is larger than 2000000000");
    }
    if (at_ == begin) wrong(begin, "a number is missing");
    return uint32_t(value);
  }

  std::string literal() {
    const size_t begin = at_++;
    std::string out;
    while (peek() != '"' || !more()) {
      if (!more() || peek() == '\n') wrong(begin, "this text does not end in its line");
      if (!take("\\")) {
        out += text_[at_++];
        continue;
      }
      const char c = peek();
      ++at_;
      constexpr std::pair<char, char> kEscapes[] = {{'n', '\n'}, {'t', '\t'},  {'r', '\r'}, {'f', '\f'},
                                                    {'v', '\v'}, {'b', '\b'},  {'0', '\0'}, {'\\', '\\'},
                                                    {'"', '"'},  {'\'', '\''}, {'/', '/'}};
      const auto escape =
          std::find_if(std::begin(kEscapes), std::end(kEscapes), [&](const auto& e) { return e.first == c; });
      if (escape != std::end(kEscapes)) {
        out += escape->second;
      } else if (c == 'x' || c == 'u') {
        uint32_t value = 0;
        for (int i = 0; i < (c == 'x' ? 2 : 4); ++i, ++at_) {
          const char h = peek();
          const int d = digit(h)               ? h - '0'
                        : h >= 'a' && h <= 'f' ? h - 'a' + 10
                        : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                               : -1;
          if (d < 0) wrong(at_, "hexadecimal digits are missing");
          value = value << 4 | uint32_t(d);
        }
        if (value >= 0xd800 && value <= 0xdfff) wrong(at_, "half of a surrogate pair is no character");
        append_utf8(out, value);
      } else {
        wrong(at_ - 2, "this escape is not known");
      }
    }
    ++at_;
    return out;
  }

  NodeId pattern() {
    const size_t begin = at_++;
    while (more() && peek() != '/' && peek() != '\n') at_ += peek() == '\\' ? 2 : 1;
    if (at_ >= text_.size() || peek() != '/') wrong(begin, "this pattern does not end in its line");
    const std::string_view body = text_.substr(begin + 1, at_ - begin - 1);
    ++at_;
    PatternOptions options;
    for (; lower(peek()); ++at_) {
      if (peek() == 'i')
        options.ignore_case = true;
      else if (peek() == 's')
        options.dot_all = true;
      else if (peek() != 'u')
        refuse(at_, "this flag");
    }
    try {
      return whole_pattern(syntax_, body, options);
    } catch (const Error& error) {
      wrong(begin, std::string("pattern, ") + error.what(), error.kind());
    }
  }

  Syntax& syntax_;
  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  bool in_terminal_ = false;
  RuleId ignored_;
  std::vector<NodeId> ignore_;
  std::map<std::string, Known> names_;
};

}  // namespace

RuleId add_lark(Syntax& syntax, std::string_view grammar) { return LarkParser(syntax, grammar).parse(); }

}  // namespace cairn::text::constrain
