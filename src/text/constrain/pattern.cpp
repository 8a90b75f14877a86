#include "text/constrain/pattern.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/constrain/notations.h"
#include "text/utf8.h"

namespace cairn::text::constrain {

namespace {

// What one part of a pattern matches; whether only at the start or the end of the text.
struct Alternative {
  NodeId node;
  bool at_start = false, at_end = false;
};
using Part = std::vector<Alternative>;  // at most one for each pair of flags

CodePoints digits() { return CodePoints('0', '9'); }

CodePoints word() {
  CodePoints set = digits();
  set.add('A', 'Z');
  set.add('_', '_');
  set.add('a', 'z');
  return set;
}

CodePoints space() {
  CodePoints set('\t', '\r');
  for (const uint32_t c : {0x20u, 0xa0u, 0x1680u, 0x202fu, 0x205fu, 0x3000u, 0xfeffu}) set.add(c, c);
  set.add(0x2000, 0x200a);
  set.add(0x2028, 0x2029);
  return set;
}

CodePoints line_ends() {
  CodePoints set('\n', '\n');
  set.add('\r', '\r');
  set.add(0x2028, 0x2029);
  return set;
}

class PatternParser {
 public:
  PatternParser(Syntax& syntax, std::string_view pattern, const PatternOptions& options)
      : syntax_(syntax), text_(pattern), options_(options), ignore_case_(options.ignore_case) {
    if (!is_valid_utf8(pattern))
      fail(ErrorKind::invalid_argument, "offset 0: the pattern is not valid UTF-8");
  }

  Part parse() {
    Part part = alternatives();
    if (at_ < text_.size()) wrong("there is no group that this ) ends");
    return part;
  }

 private:
  [[noreturn]] void wrong(std::string_view what) const {
    fail(ErrorKind::invalid_argument, "offset {}: {}", at_, what);
  }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::unsupported, "offset {}: {} is not supported", at_, what);
  }
  bool more() const { return at_ < text_.size(); }
  bool next_is(std::string_view s) const { return text_.substr(at_).starts_with(s); }
  bool take(std::string_view s) {
    if (!next_is(s)) return false;
    at_ += s.size();
    return true;
  }
  uint32_t take_character() {
    const auto c = decode_utf8(text_.substr(at_));
    at_ += c.bytes;
    return c.value;
  }

  NodeId written(CodePoints set) {
    if (ignore_case_) set.add_other_case();
    return options_.characters ? options_.characters(syntax_, std::move(set))
                               : syntax_.characters(std::move(set));
  }

  static void merge(Syntax& syntax, Part& into, const Alternative& alternative) {
    for (auto& known : into)
      if (known.at_start == alternative.at_start && known.at_end == alternative.at_end) {
        known.node = syntax.choice({known.node, alternative.node});
        return;
      }
    into.push_back(alternative);
  }

  Part alternatives() {
    if (++depth_ > kDeepest) wrong("groups are nested too deeply");
    std::vector<NodeId> plain;  // joined at once: a thousand words in a row are usual
    Part out;
    do {
      for (const auto& alternative : sequence()) {
        if (!alternative.at_start && !alternative.at_end)
          plain.push_back(alternative.node);
        else
          merge(syntax_, out, alternative);
      }
    } while (take("|"));
    if (!plain.empty()) out.push_back({syntax_.choice(std::move(plain))});
    --depth_;
    return out;
  }

  Part sequence() {
    std::vector<NodeId> plain;  // since the last part with anchors
    Part out = {{syntax_.empty()}};
    const auto settle = [&] {
      if (plain.empty()) return;
      const NodeId node = syntax_.sequence(std::move(plain));
      plain.clear();
      append(out, {{node}});
    };
    while (more() && text_[at_] != '|' && text_[at_] != ')') {
      const size_t begin = at_;
      Part part = quantified();
      if (part.size() == 1 && !part[0].at_start && !part[0].at_end) {
        plain.push_back(part[0].node);
        continue;
      }
      settle();
      anchor_ = begin;
      append(out, part);
    }
    settle();
    return out;
  }

  void append(Part& left, const Part& right) {
    Part out;
    for (const auto& a : left)
      for (const auto& b : right) {
        const bool nothing_before = a.node == syntax_.empty(), nothing_after = b.node == syntax_.empty();
        if ((b.at_start && !nothing_before) || (a.at_end && !nothing_after)) {
          at_ = anchor_;
          refuse("an anchor inside the pattern");
        }
        merge(syntax_, out,
              {syntax_.sequence({a.node, b.node}), a.at_start || b.at_start, a.at_end || b.at_end});
      }
    left = std::move(out);
  }

  Part quantified() {
    Part part = atom();
    uint32_t minimum = 1, maximum = 1;
    const size_t begin = at_;
    if (take("*")) {
      minimum = 0, maximum = kUnbounded;
    } else if (take("+")) {
      maximum = kUnbounded;
    } else if (take("?")) {
      minimum = 0;
    } else if (!counted(minimum, maximum)) {
      return part;
    }
    if (!take("?") && next_is("+")) refuse("a possessive quantifier");  // lazy ones match the same texts
    uint32_t ignored[2];
    if (next_is("*") || next_is("+") || next_is("?") || counted(ignored[0], ignored[1]))
      wrong("a quantifier follows another");
    if (part.size() != 1 || part[0].at_start || part[0].at_end) {
      at_ = begin;
      refuse("a repeat of an anchor");
    }
    if (maximum != kUnbounded && minimum > maximum) {
      at_ = begin;
      wrong("the numbers of this quantifier are out of order");
    }
    return {{syntax_.repeat(part[0].node, minimum, maximum)}};
  }

  // {3}, {3,}, {3,5}; anything else in braces is text.
  bool counted(uint32_t& minimum, uint32_t& maximum) {
    const size_t begin = at_;
    if (!take("{")) return false;
    const auto first = number();
    std::optional<uint32_t> second = first;
    bool open = false;
    if (first && take(",")) {
      second = number();
      open = !second;
    }
    if (!first || !take("}")) {
      at_ = begin;
      return false;
    }
    minimum = *first;
    maximum = open ? kUnbounded : *second;
    return true;
  }

  std::optional<uint32_t> number() {
    constexpr uint64_t kMost = 2'000'000'000;
    const size_t begin = at_;
    uint64_t value = 0;
    while (more() && text_[at_] >= '0' && text_[at_] <= '9') {
      value = value * 10 + uint64_t(text_[at_++] - '0');
      if (value > kMost) wrong("the repeat is larger than 2000000000");
    }
    if (at_ == begin) return std::nullopt;
    return uint32_t(value);
  }

  Part atom() {
    const char c = text_[at_];
    switch (c) {
      case '^': ++at_; return {{syntax_.empty(), true, false}};
      case '$': ++at_; return {{syntax_.empty(), false, true}};
      case '(': return group();
      case '[': return {{character_class()}};
      case '.':
        ++at_;
        return {{written(options_.dot_all || dot_all_ ? CodePoints::all() : line_ends().complement())}};
      case '*':
      case '+':
      case '?': wrong("there is nothing to repeat");
      case '\\': {
        if (next_is("\\b") || next_is("\\B")) refuse("a word boundary");
        if (next_is("\\k") || (at_ + 1 < text_.size() && text_[at_ + 1] >= '1' && text_[at_ + 1] <= '9'))
          refuse("a back-reference");
        return {{written(escape(false))}};
      }
      default: {
        const uint32_t character = take_character();
        return {{written(CodePoints(character, character))}};
      }
    }
  }

  Part group() {
    const bool ignore_case_before = ignore_case_, dot_all_before = dot_all_;
    const size_t begin = at_;
    if (next_is("(?=") || next_is("(?!")) refuse("look-ahead");
    if (next_is("(?<=") || next_is("(?<!")) refuse("look-behind");
    if (next_is("(?>") || next_is("(?(") || next_is("(?#") || next_is("(?R") || next_is("(?&"))
      refuse("this kind of group");
    take("(");
    if (take("?<") || take("?P<")) {
      const size_t end = text_.find('>', at_);
      if (end == text_.npos) wrong("the name of the group does not end");
      at_ = end + 1;
    } else if (take("?")) {
      bool on = true;
      while (more() && text_[at_] != ':' && text_[at_] != ')') {
        const char flag = text_[at_++];
        if (flag == '-')
          on = false;
        else if (flag == 'i')
          ignore_case_ = on;
        else if (flag == 's')
          dot_all_ = on;
        else {
          at_ = begin;
          refuse("this flag or kind of group");
        }
      }
      if (take(")")) {  // for the rest of the pattern
        if (begin != 0) {
          at_ = begin;
          refuse("a flag that does not start the pattern");
        }
        return {{syntax_.empty()}};
      }
      take(":");
    }
    Part part = alternatives();
    if (!take(")")) {
      at_ = begin;
      wrong("the group does not end");
    }
    ignore_case_ = ignore_case_before;
    dot_all_ = dot_all_before;
    return part;
  }

  uint32_t hex(int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const char c = more() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) wrong("hexadecimal digits are missing");
      value = value << 4 | uint32_t(digit);
      ++at_;
    }
    return value;
  }

  // A whole escape, from its backslash on.
  CodePoints escape(bool in_class) {
    const size_t begin = at_++;
    if (!more()) wrong("the pattern ends with a backslash");
    const auto one = [](uint32_t c) { return CodePoints(c, c); };
    const char c = text_[at_];
    switch (c) {
      case 'd': ++at_; return digits();
      case 'D': ++at_; return digits().complement();
      case 'w': ++at_; return word();
      case 'W': ++at_; return word().complement();
      case 's': ++at_; return space();
      case 'S': ++at_; return space().complement();
      case 't': ++at_; return one('\t');
      case 'n': ++at_; return one('\n');
      case 'v': ++at_; return one('\v');
      case 'f': ++at_; return one('\f');
      case 'r': ++at_; return one('\r');
      case '0': ++at_; return one(0);
      case 'b':
        if (in_class) {
          ++at_;
          return one('\b');
        }
        break;
      case 'c':
        ++at_;
        if (!more() || !((text_[at_] | 32) >= 'a' && (text_[at_] | 32) <= 'z')) wrong("\\c needs a letter");
        return one(uint32_t(text_[at_++]) % 32);
      case 'x': {
        ++at_;
        return one(hex(2));
      }
      case 'u': {
        ++at_;
        uint32_t value = 0;
        if (take("{")) {
          while (more() && text_[at_] != '}') {
            value = value << 4 | hex(1);
            if (value > kLastCodePoint) wrong("there is no such character");
          }
          if (!take("}")) wrong("} is missing");
        } else {
          value = hex(4);
          if (value >= 0xd800 && value < 0xdc00 && take("\\u")) {
            const uint32_t low = hex(4);
            if (low < 0xdc00 || low > 0xdfff) wrong("the low half of the surrogate pair is missing");
            value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
          }
        }
        if (value >= 0xd800 && value <= 0xdfff) wrong("half of a surrogate pair is no character");
        return one(value);
      }
      case 'p':
      case 'P': {
        ++at_;
        if (!take("{")) wrong("\\p needs a class in braces");
        const size_t end = text_.find('}', at_);
        if (end == text_.npos) wrong("} is missing");
        CodePoints set;
        if (!unicode_class(text_.substr(at_, end - at_), set)) {
          at_ = begin;
          refuse("this Unicode class");
        }
        at_ = end + 1;
        return c == 'P' ? set.complement() : set;
      }
      default: break;
    }
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
      at_ = begin;
      refuse("this escape");
    }
    return one(take_character());
  }

  NodeId character_class() {
    const size_t begin = at_++;
    const bool negated = take("^");
    CodePoints set;
    const auto member = [&]() -> CodePoints {
      if (text_[at_] == '\\') return escape(true);
      if (next_is("[:")) refuse("a POSIX class");
      const uint32_t c = take_character();
      return CodePoints(c, c);
    };
    const auto single = [](const CodePoints& s) {
      return s.ranges().size() == 1 && s.ranges()[0].low == s.ranges()[0].high;
    };
    for (;;) {
      if (!more()) {
        at_ = begin;
        wrong("the class does not end");
      }
      if (take("]")) break;
      const CodePoints low = member();
      if (next_is("-") && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const CodePoints high = member();
        if (!single(low) || !single(high)) wrong("a range between classes");
        if (low.ranges()[0].low > high.ranges()[0].low) wrong("the range of the class is out of order");
        set.add(low.ranges()[0].low, high.ranges()[0].low);
      } else {
        set.add(low);
      }
    }
    if (negated && ignore_case_) set.add_other_case();
    return written(negated ? set.complement() : set);
  }

  Syntax& syntax_;
  std::string_view text_;
  const PatternOptions& options_;
  size_t at_ = 0, anchor_ = 0;
  int depth_ = 0;
  bool ignore_case_, dot_all_ = false;
};

}  // namespace

NodeId whole_pattern(Syntax& syntax, std::string_view pattern, const PatternOptions& options) {
  std::vector<NodeId> nodes;
  for (const auto& alternative : PatternParser(syntax, pattern, options).parse())
    nodes.push_back(alternative.node);
  return syntax.choice(std::move(nodes));
}

NodeId found_pattern(Syntax& syntax, std::string_view pattern, const PatternOptions& options) {
  PatternParser parser(syntax, pattern, options);
  const Part part = parser.parse();
  const NodeId anything = syntax.repeat(options.characters ? options.characters(syntax, CodePoints::all())
                                                           : syntax.characters(CodePoints::all()),
                                        0, kUnbounded);
  std::vector<NodeId> nodes;
  for (const auto& alternative : part)
    nodes.push_back(syntax.sequence({alternative.at_start ? syntax.empty() : anything, alternative.node,
                                     alternative.at_end ? syntax.empty() : anything}));
  return syntax.choice(std::move(nodes));
}

RuleId add_regex(Syntax& syntax, std::string_view pattern) {
  const RuleId root = syntax.rule("regex");
  syntax.define(root, whole_pattern(syntax, pattern));
  return root;
}

}  // namespace cairn::text::constrain
