#include "serve/api/constraint.h"

#include <optional>

#include "serve/api/api_error.h"

namespace cairn::serve {
namespace {

using Source = text::GrammarSource;

struct Named {
  Source source;
  std::string place;
};

// The regular expression of one of these texts.
std::string alternatives(const Json& choices) {
  std::string pattern;
  for (const auto& choice : choices) {
    pattern += pattern.empty() ? "(" : "|(";
    for (const char c : choice.get_ref<const std::string&>()) {
      if (std::string_view("\\^$.|?*+()[]{}/-").find(c) != std::string_view::npos) pattern += '\\';
      pattern += c;
    }
    pattern += ')';
  }
  return pattern;
}

std::optional<Named> from_format(const Json* format, const std::string& place) {
  if (!format) return std::nullopt;
  const auto type = text_of(*format, "type");
  if (type == "json_object") return Named{{Source::Kind::json_object, ""}, place};
  if (type != "json_schema") return std::nullopt;
  const Json* named = member(*format, "json_schema");  // chat has it one level deeper than responses
  const std::string at = named ? place + ".json_schema.schema" : place + ".schema";
  return Named{{Source::Kind::json_schema, dump((named ? *named : *format).at("schema"))}, at};
}

// Members of vLLM, SGLang and llama.cpp.
std::vector<Named> from_members(const Json& body, const std::string& prefix) {
  std::vector<Named> found;
  const auto add = [&](const char* name, Source::Kind kind) {
    const Json* value = member(body, name);
    if (!value) return;
    const bool json = kind == Source::Kind::json_schema;
    found.push_back({{kind, json ? dump(*value) : value->get<std::string>()}, prefix + name});
  };
  const auto choice = [&](const char* name) {
    if (const Json* value = member(body, name))
      found.push_back({{Source::Kind::regex, alternatives(*value)}, prefix + name});
  };
  if (prefix.empty()) {
    add("json_schema", Source::Kind::json_schema);
    add("grammar", Source::Kind::gbnf);
    add("regex", Source::Kind::regex);
    add("lark", Source::Kind::lark);
    add("guided_json", Source::Kind::json_schema);
    add("guided_regex", Source::Kind::regex);
    add("guided_grammar", Source::Kind::gbnf);
    choice("guided_choice");
  } else {
    add("json", Source::Kind::json_schema);
    add("regex", Source::Kind::regex);
    add("grammar", Source::Kind::gbnf);
    choice("choice");
    if (flag(body, "json_object", false))
      found.push_back({{Source::Kind::json_object, ""}, prefix + "json_object"});
  }
  return found;
}

template <typename Compile>
text::GrammarPtr compiled(const std::string& place, Compile&& compile) {
  try {
    return compile();
  } catch (const Error& error) {
    throw ApiError(400, place, error.kind() == ErrorKind::unsupported ? "unsupported_value" : "invalid_value",
                   "'" + place + "': " + error.what());
  }
}

// A schema that cannot be compiled constrains nothing but that the arguments are an object, unless the client
// asked for more ("strict"): clients send what their tools happen to have.
Source arguments_of(const text::ToolSyntax& syntax, const Json& tools, text::GrammarCompiler& grammars) {
  if (!syntax.schema) return {Source::Kind::gbnf, syntax.gbnf};
  Source source{Source::Kind::json_schema, dump(*syntax.schema)};
  for (size_t i = 0; i < tools.size(); ++i) {
    const auto& function = tools[i].at("function");
    if (text_of(function, "name") != syntax.tool || !flag(function, "strict", false)) continue;
    (void)compiled(fmt::format("tools[{}].function.parameters", i), [&] { return grammars.compile(source); });
    return source;
  }
  try {
    (void)grammars.compile(source);
    return source;
  } catch (const Error&) {
    return {Source::Kind::json_object, ""};
  }
}

text::GrammarPtr from_tools(const ToolConstraint& constraint, bool in_reasoning, const Serving& serving) {
  std::vector<text::GrammarCompiler::Tagged> tagged;
  for (const auto& syntax : serving.format.tool_syntax(*constraint.tools))
    if (constraint.only.empty() || syntax.tool == constraint.only)
      tagged.push_back({syntax.begin, arguments_of(syntax, *constraint.tools, serving.grammars), syntax.end});
  if (tagged.empty()) return nullptr;
  // Reasoning that has begun goes on; whether a call follows is then the model's choice.
  const bool first = (constraint.required || !constraint.only.empty()) && !in_reasoning;
  try {
    return serving.grammars.tagged(tagged, first, constraint.parallel && constraint.only.empty());
  } catch (const Error& error) {
    if (first) throw ApiError(400, "tools", "unsupported_value", std::string("'tools': ") + error.what());
    return nullptr;
  }
}

}  // namespace

void read_constraint(const Json& body, const Json* format, const std::string& format_place,
                     const ToolConstraint& tools, bool in_reasoning, const Serving& serving,
                     engine::GenerateRequest& request) {
  auto sources = from_members(body, "");
  if (const Json* outputs = member(body, "structured_outputs"))
    for (auto& source : from_members(*outputs, "structured_outputs.")) sources.push_back(std::move(source));
  if (auto source = from_format(format, format_place)) sources.push_back(std::move(*source));
  if (sources.size() > 1)
    refuse(400, sources[1].place, "invalid_value",
           "'{}' and '{}' both say what the answer must look like: give one", sources[0].place,
           sources[1].place);
  if (sources.empty()) {
    if (tools.tools) request.grammar = from_tools(tools, in_reasoning, serving);
  } else {
    const Source& source = sources[0].source;  // no structured binding: clang 14 captures none
    const std::string& place = sources[0].place;
    if (tools.tools && (tools.required || !tools.only.empty()))
      refuse(400, place, "unsupported_value", "'{}' and a required tool call exclude each other", place);
    request.grammar = compiled(place, [&] {
      if (!in_reasoning) return serving.grammars.compile(source);
      // Free text until the reasoning ends, then the form.
      std::string end(serving.format.reasoning_end_text());
      while (!end.empty() && (end.back() == '\n' || end.back() == ' ')) end.pop_back();
      while (!end.empty() && (end.front() == '\n' || end.front() == ' ')) end.erase(0, 1);
      return serving.grammars.tagged({{end, source, ""}}, false, false);
    });
  }
  if (request.grammar && request.ignore_end)
    refuse(400, "ignore_eos", "unsupported_value",
           "'ignore_eos' and a form of the answer exclude each other");
}

}  // namespace cairn::serve
