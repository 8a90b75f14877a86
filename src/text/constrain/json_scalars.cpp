// Numbers and strings of a schema.
#include <algorithm>

#include "text/constrain/json_formats.h"
#include "text/constrain/json_schema.h"
#include "text/constrain/pattern.h"

namespace cairn::text::constrain {

namespace {

// Several conditions on one string or number are met by a machine that is their product.
constexpr size_t kMostStates = 20'000;

}  // namespace

uint32_t SchemaCompiler::count(Schema schema, const char* keyword) {
  const auto number = decimal(schema->at(keyword));
  if (!number || number->negative || !number->fraction.empty())
    wrong(schema, keyword, "must be a whole number, 0 or more");
  if (number->whole.size() > 10 || std::stoull(number->whole) > 2'000'000'000)
    wrong(schema, keyword, "is larger than 2000000000");
  return uint32_t(std::stoull(number->whole));
}

uint32_t SchemaCompiler::largest(const Plain& plain, const char* keyword) {
  uint32_t out = 0;
  for (const Schema schema : plain)
    if (schema->contains(keyword)) out = std::max(out, count(schema, keyword));
  return out;
}

uint32_t SchemaCompiler::smallest(const Plain& plain, const char* keyword) {
  uint32_t out = kUnbounded;
  for (const Schema schema : plain)
    if (schema->contains(keyword)) out = std::min(out, count(schema, keyword));
  return out;
}

NumberRange SchemaCompiler::range(const Plain& plain, bool whole) {
  NumberRange out;
  out.whole = whole;
  for (const Schema schema : plain) {
    const auto bound = [&](const char* keyword) { return decimal(schema->at(keyword)); };
    for (const char* keyword : {"minimum", "exclusiveMinimum"}) {
      if (!schema->contains(keyword)) continue;
      const auto b = bound(keyword);
      const bool exclusive = keyword[0] == 'e';
      const int order = out.least ? compare(*b, *out.least) : 1;
      if (order > 0) out.least = b, out.above_least = exclusive;
      if (order == 0) out.above_least |= exclusive;
    }
    for (const char* keyword : {"maximum", "exclusiveMaximum"}) {
      if (!schema->contains(keyword)) continue;
      const auto b = bound(keyword);
      const bool exclusive = keyword[0] == 'e';
      const int order = out.most ? compare(*b, *out.most) : -1;
      if (order < 0) out.most = b, out.below_most = exclusive;
      if (order == 0) out.below_most |= exclusive;
    }
    if (schema->contains("multipleOf")) out.steps.push_back(*bound("multipleOf"));
  }
  return out;
}

NodeId SchemaCompiler::number(const Plain& plain, bool whole) {
  const NumberRange r = range(plain, whole);
  if (!r.least && !r.most && r.steps.empty()) return whole ? text_.integer() : text_.number();
  auto machine = number_machine(r, kMostStates);
  if (!machine) {
    for (const Schema schema : plain)
      if (schema->contains("multipleOf")) refuse(schema, "multipleOf", "of so many digits is not supported");
    wrong(plain[0], "", "the bounds of this number take too many states", ErrorKind::unsupported);
  }
  return syntax_.machine(std::move(*machine));
}

SchemaCompiler::StringLimits SchemaCompiler::string_limits(const Plain& plain) {
  StringLimits out;
  out.minimum = largest(plain, "minLength");
  out.maximum = smallest(plain, "maxLength");
  for (const Schema schema : plain) {
    if (schema->contains("minLength") || schema->contains("maxLength")) out.place = schema;
    out.patterns |= schema->contains("pattern") || schema->contains("format");
  }
  return out;
}

NodeId SchemaCompiler::pattern_node(Schema schema, const std::string& keyword, const std::string& pattern) {
  const PatternOptions options{.characters = json_characters};
  if (is_format(keyword)) {
    const auto of_format = format_pattern(pattern);
    if (of_format.empty()) refuse(schema, keyword, "\"" + pattern + "\" is not supported");
    return whole_pattern(syntax_, of_format, options);
  }
  try {
    return found_pattern(syntax_, pattern, options);
  } catch (const Error& error) {
    const bool key = keyword == "patternProperties";
    wrong(schema, keyword, (key ? pattern + ": " : std::string()) + error.what(), error.kind());
  }
}

const Machine& SchemaCompiler::pattern_machine(Schema schema, const std::string& keyword,
                                               const std::string& pattern) {
  const std::string key = (is_format(keyword) ? "f" : "p") + pattern;
  const auto [at, fresh] = patterns_.try_emplace(key);
  if (fresh) {
    auto machine = machine_of(syntax_, pattern_node(schema, keyword, pattern), kMostStates);
    if (!machine) {
      patterns_.erase(at);
      refuse(schema, keyword, "takes too many states to be combined with other conditions");
    }
    syntax_.charge(machine->states.size());
    at->second = std::move(*machine);
  }
  return at->second;
}

// Everything that the schemas say about the content.
const Machine& SchemaCompiler::string_machine(const Plain& plain) {
  const auto [at, fresh] = string_machines_.try_emplace(plain);
  if (!fresh) return at->second;
  std::optional<Machine> all;
  const auto also = [&](const Machine& machine, Schema schema, const std::string& keyword) {
    all = all ? intersect(*all, machine, kMostStates) : machine;
    if (!all) {
      string_machines_.erase(plain);
      refuse(schema, keyword, "takes too many states to be combined with other conditions");
    }
    syntax_.charge(all->states.size());
  };
  try {
    for (const Schema schema : plain)
      for (const char* keyword : {"pattern", "format"})
        if (schema->contains(keyword))
          also(pattern_machine(schema, keyword, schema->at(keyword).get<std::string>()), schema, keyword);
    const auto limits = string_limits(plain);
    if (limits.place || !all) {
      const NodeId character = json_characters(syntax_, CodePoints::all());
      const auto machine =
          machine_of(syntax_, syntax_.repeat(character, limits.minimum, limits.maximum), kMostStates);
      if (!machine)
        wrong(limits.place, "",
              "minLength or maxLength is too large to be combined with a pattern, format or name",
              ErrorKind::unsupported);
      also(*machine, limits.place, "maxLength");
    }
  } catch (...) {
    string_machines_.erase(plain);
    throw;
  }
  return at->second = std::move(*all);
}

NodeId SchemaCompiler::string(const Plain& plain) {
  const auto limits = string_limits(plain);
  if (limits.minimum > limits.maximum) return syntax_.never();
  if (!limits.patterns) return text_.string(limits.minimum, limits.maximum);
  // One pattern alone may count its repeats instead of copying them.
  std::vector<std::pair<Schema, const char*>> conditions;
  for (const Schema schema : plain)
    for (const char* keyword : {"pattern", "format"})
      if (schema->contains(keyword)) conditions.push_back({schema, keyword});
  if (conditions.size() == 1 && !limits.place) {
    const auto [schema, keyword] = conditions[0];
    const NodeId content = pattern_node(schema, keyword, schema->at(keyword).get<std::string>());
    if (content == syntax_.never()) return content;
    const RuleId rule = syntax_.rule("string", true);
    syntax_.define(rule, syntax_.sequence({syntax_.text("\""), content, syntax_.text("\"")}));
    return syntax_.call(rule);
  }
  return text_.string_of(string_machine(plain));
}

}  // namespace cairn::text::constrain
