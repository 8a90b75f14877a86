#include "text/constrain/json_text.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "text/constrain/notations.h"

namespace cairn::text::constrain {

using nlohmann::ordered_json;

namespace {

CodePoints one(uint32_t c) { return CodePoints(c, c); }

CodePoints of(std::string_view characters) {
  CodePoints set;
  for (const char c : characters) set.add(uint8_t(c), uint8_t(c));
  return set;
}

CodePoints hex_digits() {
  CodePoints set('0', '9');
  set.add('A', 'F');
  set.add('a', 'f');
  return set;
}

// What stands for itself inside a string.
CodePoints plain_characters() {
  CodePoints escaped(0, 0x1f);
  escaped.add('"', '"');
  escaped.add('\\', '\\');
  return escaped.complement();
}

}  // namespace

NodeId JsonText::shared(RuleId& rule, const char* name, NodeId (JsonText::*body)()) {
  if (rule < 0) {
    rule = syntax_.rule(name, true);
    syntax_.define(rule, (this->*body)());
  }
  return syntax_.call(rule);
}

NodeId JsonText::space() { return shared(space_, "space", &JsonText::space_body); }
NodeId JsonText::any() { return shared(any_, "value", &JsonText::any_body); }
NodeId JsonText::object() { return shared(object_, "object", &JsonText::object_body); }
NodeId JsonText::array() { return shared(array_, "array", &JsonText::array_body); }
NodeId JsonText::number() { return shared(number_, "number", &JsonText::number_body); }
NodeId JsonText::integer() { return shared(integer_, "integer", &JsonText::integer_body); }

NodeId JsonText::space_body() {
  constexpr uint32_t kMostIndent = 80;
  Syntax& s = syntax_;
  return s.choice({s.empty(), s.text(" "),
                   s.sequence({s.optional(s.text("\r")), s.text("\n"),
                               s.repeat(s.characters(of(" \t")), 0, kMostIndent)})});
}

NodeId JsonText::any_body() {
  return syntax_.choice({object(), array(), string(), number(), syntax_.text("true"), syntax_.text("false"),
                         syntax_.text("null")});
}

NodeId JsonText::object_body() {
  Syntax& s = syntax_;
  const NodeId member = s.sequence({string(), colon(), any()});
  const NodeId members =
      s.sequence({member, s.repeat(s.sequence({comma(), member}), 0, kUnbounded), space()});
  return s.sequence({s.text("{"), space(), s.optional(members), s.text("}")});
}

NodeId JsonText::array_body() {
  Syntax& s = syntax_;
  const NodeId items = s.sequence({any(), s.repeat(s.sequence({comma(), any()}), 0, kUnbounded), space()});
  return s.sequence({s.text("["), space(), s.optional(items), s.text("]")});
}

NodeId JsonText::integer_body() {
  Syntax& s = syntax_;
  const NodeId digit = s.characters(CodePoints('0', '9'));
  const NodeId whole = s.choice(
      {s.text("0"), s.sequence({s.characters(CodePoints('1', '9')), s.repeat(digit, 0, kUnbounded)})});
  return s.sequence({s.optional(s.text("-")), whole});
}

NodeId JsonText::number_body() {
  Syntax& s = syntax_;
  const NodeId digits = s.repeat(s.characters(CodePoints('0', '9')), 1, kUnbounded);
  return s.sequence(
      {integer_body(), s.optional(s.sequence({s.text("."), digits})),
       s.optional(s.sequence({s.characters(of("eE")), s.optional(s.characters(of("+-"))), digits}))});
}

NodeId JsonText::string(uint32_t minimum, uint32_t maximum) {
  auto [at, fresh] = strings_.try_emplace({minimum, maximum}, -1);
  if (fresh) {
    Syntax& s = syntax_;
    const NodeId hex = s.characters(hex_digits());
    const NodeId low = s.sequence({s.characters(of("dD")), s.characters(of("cCdDeEfF")), hex, hex});
    // \u0000 to \ud7ff and \ue000 to \uffff, or both halves of a pair.
    const NodeId single =
        s.choice({s.sequence({s.characters(of("0123456789abcABCefEF")), hex, hex, hex}),
                  s.sequence({s.characters(of("dD")), s.characters(of("01234567")), hex, hex})});
    const NodeId pair =
        s.sequence({s.characters(of("dD")), s.characters(of("89abAB")), hex, hex, s.text("\\u"), low});
    const NodeId escape = s.sequence(
        {s.text("\\"),
         s.choice({s.characters(of("\"\\/bfnrt")), s.sequence({s.text("u"), s.choice({single, pair})})})});
    const NodeId character = s.choice({s.characters(plain_characters()), escape});
    at->second = s.rule("string", true);
    s.define(at->second, s.sequence({s.text("\""), s.repeat(character, minimum, maximum), s.text("\"")}));
  }
  return syntax_.call(at->second);
}

NodeId JsonText::string_of(Machine content) {
  Syntax& s = syntax_;
  const NodeId inside = s.machine(std::move(content));
  if (inside == s.never()) return inside;
  const RuleId rule = s.rule("string", true);
  s.define(rule, s.sequence({s.text("\""), inside, s.text("\"")}));
  return s.call(rule);
}

NodeId JsonText::literal(const ordered_json& value) {
  Syntax& s = syntax_;
  if (value.is_object() || value.is_array()) {
    const bool object = value.is_object();
    if (value.empty()) return s.sequence({s.text(object ? "{" : "["), space(), s.text(object ? "}" : "]")});
    std::vector<NodeId> parts = {s.text(object ? "{" : "["), space()};
    bool first = true;
    for (auto item = value.begin(); item != value.end(); ++item) {
      if (!std::exchange(first, false)) parts.push_back(comma());
      if (object) {
        parts.push_back(s.text("\"" + json_content(item.key()) + "\""));
        parts.push_back(colon());
      }
      parts.push_back(literal(*item));
    }
    parts.push_back(space());
    parts.push_back(s.text(object ? "}" : "]"));
    return s.sequence(std::move(parts));
  }
  if (value.is_string()) return s.text("\"" + json_content(value.get_ref<const std::string&>()) + "\"");
  constexpr double kExactWhole = 1e15;
  if (value.is_number_float() && std::abs(value.get<double>()) < kExactWhole &&
      value.get<double>() == std::trunc(value.get<double>()))
    return s.text(std::to_string(int64_t(value.get<double>())));
  return s.text(value.dump());
}

NodeId json_characters(Syntax& s, CodePoints set) {
  std::vector<NodeId> forms = {s.characters(set.intersect(plain_characters()))};
  constexpr std::pair<char, const char*> kShort[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"},
                                                     {'\f', "\\f"}, {'\n', "\\n"},  {'\r', "\\r"},
                                                     {'\t', "\\t"}};
  CodePoints rest = set.intersect(CodePoints(0, 0x1f));
  for (const auto& [c, form] : kShort) {
    if (set.contains(uint8_t(c))) forms.push_back(s.text(form));
    rest = rest.intersect(one(uint8_t(c)).complement());
  }
  for (const auto& range : rest.ranges())
    for (uint32_t c = range.low; c <= range.high; ++c) {
      CodePoints last = of(std::string_view("0123456789abcdef").substr(c % 16, 1));
      if (c % 16 >= 10) last.add('A' + c % 16 - 10, 'A' + c % 16 - 10);
      forms.push_back(s.sequence({s.text(c < 16 ? "\\u000" : "\\u001"), s.characters(last)}));
    }
  return s.choice(std::move(forms));
}

std::string json_content(std::string_view text) {
  const std::string quoted = ordered_json(text).dump();  // the same form: escapes only what must be
  return quoted.substr(1, quoted.size() - 2);
}

std::string_view json_kind(const ordered_json& value) { return value.type_name(); }

RuleId add_json_object(Syntax& syntax) {
  JsonText text(syntax);
  const RuleId root = syntax.rule("json object");
  syntax.define(root, text.object());
  return root;
}

}  // namespace cairn::text::constrain
