#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  return out;
}

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize(source)) {
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
    text_ = source_;
  }

  std::vector<Token> run() {
    while (at_ < text_.size()) root();
    add(Lexeme::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(std::string message) const { throw SyntaxError{line_, std::move(message)}; }

  void add(Lexeme type, std::string text) { tokens_.push_back({type, line_, std::move(text), 0, 0}); }

  char peek(size_t offset = 0) const { return at_ + offset < text_.size() ? text_[at_ + offset] : '\0'; }
  bool starts(std::string_view what, size_t offset = 0) const {
    return text_.substr(std::min(at_ + offset, text_.size())).starts_with(what);
  }

  void advance_to(size_t to) {
    line_ += int(std::count(text_.begin() + ptrdiff_t(at_), text_.begin() + ptrdiff_t(to), '\n'));
    line_starting_ = to > at_ ? text_[to - 1] == '\n' : line_starting_;
    at_ = to;
  }

  size_t skip_space(size_t at) const {
    while (at < text_.size()) {
      size_t next = at;
      if (!is_space(decode(text_, next))) break;
      at = next;
    }
    return at;
  }

  // The end of "raw %}" behind a block begin, or npos. end: "endraw", whose tag may also be trimmed like a
  // block's.
  size_t raw_tag(size_t after_begin, std::string_view word, bool end) const {
    size_t at = after_begin;
    if (at < text_.size() && (text_[at] == '-' || text_[at] == '+')) ++at;
    at = skip_space(at);
    if (!text_.substr(at).starts_with(word)) return std::string_view::npos;
    at = skip_space(at + word.size());
    const std::string_view rest = text_.substr(at);
    if (rest.starts_with("-%}")) return skip_space(at + 3);
    if (end && rest.starts_with("+%}")) return at + 3;
    if (!rest.starts_with("%}")) return std::string_view::npos;
    at += 2;
    return end && at < text_.size() && text_[at] == '\n' ? at + 1 : at;
  }

  // Data up to a tag that starts at `tag`, whose sign (-, + or other) follows two characters later.
  void data(size_t tag, bool variable) {
    std::string_view text = text_.substr(at_, tag - at_);
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    if (sign == '-') {
      text = strip(text, false, true);
    } else if (sign != '+' && !variable) {
      const size_t newline = text.rfind('\n');
      const size_t from = newline == std::string_view::npos ? 0 : newline + 1;
      if ((from > 0 || line_starting_) && strip(text.substr(from)).empty()) text = text.substr(0, from);
    }
    if (!text.empty()) add(Lexeme::data, std::string(text));
    advance_to(tag);
  }

  void root() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = text_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= text_.size()) {
        add(Lexeme::data, std::string(text_.substr(at_)));
        return advance_to(text_.size());
      }
      const char c = text_[tag + 1];
      if (c == '{' || c == '%' || c == '#') break;
    }
    const char kind = text_[tag + 1];
    data(tag, kind == '{');
    if (kind == '%') {
      if (const size_t body = raw_tag(at_ + 2, "raw", false); body != std::string_view::npos)
        return raw(body);
    }
    size_t begin = at_ + 2;
    if (begin < text_.size() && (text_[begin] == '-' || text_[begin] == '+')) ++begin;
    if (kind == '#') return comment(begin);
    add(kind == '{' ? Lexeme::variable_begin : Lexeme::block_begin, "");
    advance_to(begin);
    kind == '{' ? variable() : block();
  }

  void raw(size_t body) {
    advance_to(body);
    for (size_t tag = at_;; ++tag) {
      tag = text_.find("{%", tag);
      if (tag == std::string_view::npos) error("Missing end of raw directive");
      const size_t end = raw_tag(tag + 2, "endraw", true);
      if (end == std::string_view::npos) continue;
      data(tag, false);
      return advance_to(end);
    }
  }

  void comment(size_t begin) {
    advance_to(begin);
    const size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) error("Missing end of comment tag");
    size_t to = end + 2;
    if (end > at_ && text_[end - 1] == '-')
      to = skip_space(to);
    else if (!(end > at_ && text_[end - 1] == '+') && to < text_.size() && text_[to] == '\n')
      ++to;
    advance_to(to);
  }

  void variable() {
    for (;;) {
      if (open_.empty() && (starts("-}}") || starts("}}"))) {
        add(Lexeme::variable_end, "");
        return advance_to(peek() == '-' ? skip_space(at_ + 3) : at_ + 2);
      }
      if (!token()) return unfinished();
    }
  }

  void block() {
    for (;;) {
      if (open_.empty() && (starts("-%}") || starts("+%}") || starts("%}"))) {
        add(Lexeme::block_end, "");
        if (peek() == '-') return advance_to(skip_space(at_ + 3));
        if (peek() == '+') return advance_to(at_ + 3);
        return advance_to(at_ + (peek(2) == '\n' && at_ + 2 < text_.size() ? 3 : 2));
      }
      if (!token()) return unfinished();
    }
  }

  void unfinished() {
    if (at_ < text_.size()) {
      size_t next = at_;
      decode(text_, next);
      error("unexpected char '" + std::string(text_.substr(at_, next - at_)) + "'");
    }
  }

  bool token() {
    if (at_ >= text_.size()) return false;
    if (const size_t after = skip_space(at_); after > at_) {
      advance_to(after);
      return true;
    }
    if (is_ascii_digit(peek())) return number(), true;
    if (peek() == '"' || peek() == '\'') return string();
    size_t next = at_;
    const char32_t first = decode(text_, next);
    if (is_identifier_part(first)) return name(), true;
    return op();
  }

  void name() {
    size_t end = at_;
    while (end < text_.size()) {
      size_t next = end;
      if (!is_identifier_part(decode(text_, next))) break;
      end = next;
    }
    size_t first = at_;
    if (!is_identifier_start(decode(text_, first))) error("Invalid character in identifier");
    add(Lexeme::name, std::string(text_.substr(at_, end - at_)));
    advance_to(end);
  }

  // (\d+_)*\d+ from `at`: the end of digits joined by single underscores; `at` itself when there are none.
  size_t digits(size_t at) const {
    if (at >= text_.size() || !is_ascii_digit(text_[at])) return at;
    for (;;) {
      while (at < text_.size() && is_ascii_digit(text_[at])) ++at;
      if (at + 1 < text_.size() && text_[at] == '_' && is_ascii_digit(text_[at + 1]))
        ++at;
      else
        return at;
    }
  }

  size_t exponent(size_t at) const {
    if (at >= text_.size() || (text_[at] != 'e' && text_[at] != 'E')) return at;
    size_t from = at + 1;
    if (from < text_.size() && (text_[from] == '+' || text_[from] == '-')) ++from;
    const size_t end = digits(from);
    return end > from ? end : at;
  }

  void number() {
    const size_t whole = digits(at_);
    const bool after_point = at_ > 0 && text_[at_ - 1] == '.';
    size_t end = whole;
    if (!after_point) {
      if (end + 1 < text_.size() && text_[end] == '.') {
        if (const size_t fraction = digits(end + 1); fraction > end + 1) end = fraction;
      }
      end = exponent(end);
    }
    if (end > whole) {
      std::string text(text_.substr(at_, end - at_));
      std::erase(text, '_');
      Token token{Lexeme::real, line_, "", 0, std::strtod(text.c_str(), nullptr)};
      tokens_.push_back(std::move(token));
      return advance_to(end);
    }
    integer();
  }

  void integer() {
    unsigned base = 10;
    size_t at = at_;
    const char marker = char(peek(1) | 0x20);
    const auto value = [](char c) {
      return is_ascii_digit(c)                        ? c - '0'
             : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                      : 99;
    };
    if (peek() == '0' && (marker == 'x' || marker == 'o' || marker == 'b')) {
      const unsigned wanted = marker == 'x' ? 16 : marker == 'o' ? 8 : 2;
      const size_t digit = at_ + 2 + (peek(2) == '_' ? 1 : 0);
      if (digit < text_.size() && unsigned(value(text_[digit])) < wanted) base = wanted, at = at_ + 2;
    }
    // Decimal: no leading zeros but in zero itself ("007" lexes as 00 and 7, which the parser refuses).
    const bool zeros = base == 10 && peek() == '0';
    Int number = 0;
    for (; at < text_.size(); ++at) {
      char c = text_[at];
      if (c == '_' && at + 1 < text_.size()) c = text_[at + 1];
      const auto v = unsigned(value(c));
      if (v >= base || (zeros && v != 0)) break;
      if (text_[at] == '_') ++at;
      if (__builtin_mul_overflow(number, Int(base), &number) ||
          __builtin_add_overflow(number, Int(v), &number))
        error("an integer literal beyond 128 bits");
    }
    tokens_.push_back({Lexeme::integer, line_, "", number, 0});
    advance_to(at);
  }

  bool string() {
    const char quote = peek();
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) return false;
    add(Lexeme::string, unescape(text_.substr(at_ + 1, end - at_ - 1)));
    advance_to(end + 1);
    return true;
  }

  char32_t hex(std::string_view text, size_t at, size_t count, const char* form) const {
    char32_t value = 0;
    for (size_t i = 0; i < count; ++i) {
      const char c = at + i < text.size() ? text[at + i] : '\0';
      const int digit = is_ascii_digit(c)                        ? c - '0'
                        : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                                 : -1;
      if (digit < 0) error(std::string("truncated ") + form + " escape");
      value = value << 4 | char32_t(digit);
    }
    return value;
  }

  // As Python: encode("ascii", "backslashreplace").decode("unicode-escape").
  std::string unescape(std::string_view text) const {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      if (text[at] != '\\') {
        out.push_back(text[at++]);
        continue;
      }
      if (++at >= text.size()) error("\\ at end of string");
      const char c = text[at];
      if (static_cast<unsigned char>(c) >= 0x80) {
        // The character behind the backslash is itself written as an escape first, and its backslash is what
        // is quoted.
        const char32_t point = decode(text, at);
        out += point <= 0xFF     ? fmt::format("\\x{:02x}", uint32_t(point))
               : point <= 0xFFFF ? fmt::format("\\u{:04x}", uint32_t(point))
                                 : fmt::format("\\U{:08x}", uint32_t(point));
        continue;
      }
      ++at;
      switch (c) {
        case '\n': break;
        case '\\': out += '\\'; break;
        case '\'': out += '\''; break;
        case '"': out += '"'; break;
        case 'a': out += '\a'; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'v': out += '\v'; break;
        case 'x': append(out, hex(text, at, 2, "\\xXX")), at += 2; break;
        case 'u': append(out, hex(text, at, 4, "\\uXXXX")), at += 4; break;
        case 'U': {
          const char32_t point = hex(text, at, 8, "\\UXXXXXXXX");
          if (point > 0x10FFFF) error("illegal Unicode character");
          append(out, point), at += 8;
          break;
        }
        case 'N': error("the escape \\N{...} in a string is not supported");
        case '0':
        case '1':
        case '2':
        case '3':
        case '4':
        case '5':
        case '6':
        case '7': {
          char32_t value = char32_t(c - '0');
          for (int i = 0; i < 2 && at < text.size() && text[at] >= '0' && text[at] <= '7'; ++i)
            value = value * 8 + char32_t(text[at++] - '0');
          append(out, value);
          break;
        }
        default: out += '\\', out += c;
      }
    }
    return out;
  }

  bool op() {
    static constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (std::string_view o : kOperators) {
      if (!starts(o)) continue;
      if (o == "(" || o == "[" || o == "{") open_.push_back(o == "(" ? ')' : o == "[" ? ']' : '}');
      if (o == ")" || o == "]" || o == "}") {
        if (open_.empty()) error(fmt::format("unexpected '{}'", o));
        if (open_.back() != o[0]) error(fmt::format("unexpected '{}', expected '{}'", o, open_.back()));
        open_.pop_back();
      }
      add(Lexeme::op, std::string(o));
      advance_to(at_ + o.size());
      return true;
    }
    return false;
  }

  std::string source_;
  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<char> open_;  // the closing brackets still to come
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace cairn::text::jinja
