#include "text/answer/written_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "text/answer/call_reader.h"
#include "text/answer/literal_reader.h"
#include "text/answer/tool_schema.h"

namespace cairn::text::answer {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kGemmaQuote = "<|\"|>";

enum class Notation { json, tagged, python, gemma };

Notation notation(const ToolRow& row) {
  if (row.name == "gemma-4") return Notation::gemma;
  switch (row.forms[row.written_form].kind) {
    case CallKind::parameters: return Notation::tagged;
    case CallKind::python: return Notation::python;
    default: return Notation::json;
  }
}

// A tag as it is written: where whitespace may stand inside, a line break does.
std::string plain(std::string_view tag) {
  std::string text(tag);
  std::replace(text.begin(), text.end(), '~', '\n');
  return text;
}

std::string between(const CallForm& form) { return form.cdata ? "" : "\n"; }

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string python_value(const Json& value, Notation style) {
  if (value.is_object() || value.is_array()) {
    std::string text;
    const bool object = value.is_object();
    for (auto item = value.begin(); item != value.end(); ++item) {
      if (!text.empty()) text += style == Notation::gemma ? "," : ", ";
      if (object) text += style == Notation::gemma ? item.key() + ":" : dump(item.key()) + ": ";
      text += python_value(*item, style);
    }
    return (object ? "{" : "[") + text + (object ? "}" : "]");
  }
  if (value.is_string() && style == Notation::gemma)
    return std::string(kGemmaQuote) + value.get<std::string>() + std::string(kGemmaQuote);
  if (style == Notation::python) {
    if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
    if (value.is_null()) return "None";
  }
  return dump(value);
}

std::string literal(std::string_view text) {  // GBNF
  std::string out = "\"";
  append_escaped(text, out);
  return out + '"';
}

// GBNF for text that does not contain the tag: whatever starts like it goes on otherwise, or ends the text.
// Runs of the tag's first byte are taken together.
std::string text_without(std::string_view tag) {
  const std::string first(tag.substr(0, 1));  // < in every format
  std::string inside = fmt::format("[^{}]", first), last = literal(first) + "+";
  for (size_t i = 1; i < tag.size();) {
    size_t bytes = 1;
    while (i + bytes < tag.size() && (static_cast<unsigned char>(tag[i + bytes]) & 0xC0) == 0x80) ++bytes;
    const std::string start =
        fmt::format("{}+ {}", literal(first), i > 1 ? literal(tag.substr(1, i - 1)) + " " : "");
    inside += fmt::format(" | {}[^{}{}]", start, tag.substr(i, bytes), first);
    if (i > 1) last += " | " + start;
    i += bytes;
  }
  return fmt::format("( {} )* ( {} )?", inside, last);
}

constexpr std::string_view kJsonRules = R"(
json-value ::= json-object | json-array | json-string | number | boolean | null
json-object ::= "{" space ( json-string space ":" space json-value space ( "," space json-string space ":" space json-value space )* )? "}"
json-array ::= "[" space ( json-value space ( "," space json-value space )* )? "]"
json-string ::= "\"" ( [^"\\\x00-\x1f] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] ) )* "\""
number ::= integer ( "." [0-9]+ )? ( [eE] [-+]? [0-9]+ )?
integer ::= "-"? ( "0" | [1-9] [0-9]* )
space ::= [ \n]?
)";

class GrammarWriter {
 public:
  GrammarWriter(const ToolRow& row, const Json& schema)
      : style_(notation(row)), form_(row.forms[row.written_form]), schema_(schema) {}

  std::string write() {
    std::vector<std::string> required, optional;
    const auto properties = schema_.find("properties");
    if (properties != schema_.end() && properties->is_object())
      for (auto property = properties->begin(); property != properties->end(); ++property) {
        const std::string rule = fmt::format("parameter-{}", rules_++);
        text_ += fmt::format("{} ::= {}\n", rule, parameter(property.key(), *property));
        (is_required(property.key()) ? required : optional).push_back(rule);
      }
    std::string root =
        style_ == Notation::tagged ? tagged(required, optional) : separated(required, optional);
    if (style_ == Notation::gemma) root = "\"{\" " + root + " \"}\"";
    const bool python = style_ == Notation::python;
    text_ +=
        fmt::format("boolean ::= {}\nnull ::= {}\n", python ? R"("True" | "False")" : R"("true" | "false")",
                    python ? R"("None")" : R"("null")");
    if (style_ == Notation::gemma) {
      text_ += fmt::format("gemma-string ::= {0} {1} {0}\n", literal(kGemmaQuote), text_without(kGemmaQuote));
      text_ +=
          "gemma-value ::= gemma-object | gemma-array | gemma-string | number | boolean | null\n"
          "gemma-key ::= [^,:{}\\[\\]<]+\n"
          "gemma-object ::= \"{\" ( gemma-key \":\" gemma-value ( \",\" gemma-key \":\" gemma-value )* )? "
          "\"}\"\n"
          "gemma-array ::= \"[\" ( gemma-value ( \",\" gemma-value )* )? \"]\"\n";
    }
    return "root ::= " + (root.empty() ? "\"\"" : root) + "\n" + text_ + std::string(kJsonRules.substr(1));
  }

 private:
  bool is_required(const std::string& name) const {
    const auto required = schema_.find("required");
    if (required == schema_.end() || !required->is_array()) return false;
    return std::find(required->begin(), required->end(), Json(name)) != required->end();
  }

  static std::string tagged(const std::vector<std::string>& required,
                            const std::vector<std::string>& optional) {
    std::string root;
    for (const std::string& rule : required) root += rule + " ";
    for (const std::string& rule : optional) root += rule + "? ";
    return root;
  }

  // With commas between: once one has been written, the others follow behind a comma each.
  std::string separated(const std::vector<std::string>& required,
                        const std::vector<std::string>& optional) const {
    const std::string comma = style_ == Notation::gemma ? "\",\"" : "\", \"";
    std::string root;
    for (const std::string& rule : required) root += (root.empty() ? "" : comma + " ") + rule + " ";
    if (!required.empty()) {
      for (const std::string& rule : optional) root += fmt::format("( {} {} )? ", comma, rule);
      return root;
    }
    for (size_t first = 0; first < optional.size(); ++first) {
      root += (first == 0 ? "( " : "| ") + optional[first] + " ";
      for (size_t i = first + 1; i < optional.size(); ++i)
        root += fmt::format("( {} {} )? ", comma, optional[i]);
    }
    return root.empty() ? root : root + ")?";
  }

  std::string parameter(const std::string& name, const Json& property) const {
    if (style_ == Notation::python) return literal(name + "=") + " " + value(property);
    if (style_ == Notation::gemma) return literal(name + ":") + " " + value(property);
    const unsigned types = types_of(property, schema_);
    const std::string line = form_.line_values ? "\n" : "";
    const std::string behind = literal(line + plain(form_.value_end) + between(form_));
    const auto tag = [&](std::string_view key_end) {
      return literal(plain(form_.parameter) + name + plain(key_end) + line);
    };
    const bool string = types == kString || (types & kString) != 0 || types == 0;
    const bool other = types != kString;
    std::string rule;
    if (string && !form_.string_key_end.empty())
      rule = tag(form_.string_key_end) + " " + string_value(property) + " " + behind;
    else if (string)
      rule = tag(form_.key_end) + " " + string_value(property) + " " + behind;
    if (other && (!string || !form_.json_key_end.empty()))
      rule += (rule.empty() ? "" : " | ") +
              tag(form_.json_key_end.empty() ? form_.key_end : form_.json_key_end) + " " + value(property) +
              " " + behind;
    return rule;
  }

  // An unquoted string: one of the values it is limited to, or anything.
  std::string string_value(const Json& property) const {
    const std::string values =
        enumerated(property, [](const Json& v) { return v.is_string() ? v.get<std::string>() : dump(v); });
    return values.empty() ? text_without(form_.value_end) : values;
  }

  template <typename Write>
  static std::string enumerated(const Json& property, Write write) {
    if (!property.is_object()) return "";
    Json values = Json::array();
    if (property.contains("const")) values.push_back(property["const"]);
    if (property.contains("enum") && property["enum"].is_array()) values = property["enum"];
    std::string out;
    for (const Json& one : values) out += (out.empty() ? "( " : " | ") + literal(write(one));
    return out.empty() ? out : out + " )";
  }

  std::string value(const Json& property) const {
    const std::string values = enumerated(property, [&](const Json& v) { return python_value(v, style_); });
    if (!values.empty()) return values;
    const unsigned types = types_of(property, schema_);
    const bool gemma = style_ == Notation::gemma;
    if (types == 0) return gemma ? "gemma-value" : "json-value";
    std::vector<std::string> names;
    const bool tags = style_ == Notation::tagged;
    if ((types & kString) != 0 && !tags) names.push_back(gemma ? "gemma-string" : "json-string");
    if ((types & kNumber) != 0)
      names.push_back(property.is_object() && property.value("type", Json()) == "integer" ? "integer"
                                                                                          : "number");
    if ((types & kBoolean) != 0) names.push_back("boolean");
    if ((types & kNull) != 0) names.push_back("null");
    if ((types & kObject) != 0) names.push_back(gemma ? "gemma-object" : "json-object");
    if ((types & kArray) != 0) names.push_back(gemma ? "gemma-array" : "json-array");
    return names.empty() ? "json-value" : fmt::format("( {} )", fmt::join(names, " | "));
  }

  Notation style_;
  const CallForm& form_;
  const Json& schema_;
  std::string text_;
  int rules_ = 0;
};

}  // namespace

bool is_written_name(std::string_view name) { return is_name(name); }

std::string written_begin(const ToolRow& row, std::string_view name) {
  std::string text(row.written);
  text.replace(text.find('$'), 1, name);
  return text;
}

std::string written_arguments(const ToolRow& row, const Json& arguments) {
  const Notation style = notation(row);
  if (style == Notation::json || !arguments.is_object()) return dump(arguments);
  if (style == Notation::gemma) return python_value(arguments, style);
  const CallForm& form = row.forms[row.written_form];
  std::string text;
  for (auto item = arguments.begin(); item != arguments.end(); ++item) {
    if (style == Notation::python) {
      text += (text.empty() ? "" : ", ") + item.key() + "=" + python_value(*item, style);
      continue;
    }
    const std::string line = form.line_values ? "\n" : "";
    std::string_view key_end = form.key_end;
    if (!form.string_key_end.empty()) key_end = item->is_string() ? form.string_key_end : form.json_key_end;
    std::string value = item->is_string() ? item->get<std::string>() : dump(*item);
    if (form.cdata && item->is_string() && value.find_first_of("<&") != std::string::npos)
      value = "<![CDATA[" + value + "]]>";
    text += plain(form.parameter) + item.key() + plain(key_end) + line + value + line +
            plain(form.value_end) + between(form);
  }
  return text;
}

std::string arguments_grammar(const ToolRow& row, const Json& schema) {
  return GrammarWriter(row, schema).write();
}

}  // namespace cairn::text::answer
