// Objects and arrays of a schema.
//
// Properties are written in the order of the schema: those of `properties`, then those that only `required`
// names, then any others that are allowed. Others never repeat one of those names, also not in an escaped
// form.
#include <algorithm>

#include "text/constrain/json_schema.h"

namespace cairn::text::constrain {

namespace {

constexpr size_t kMostStates = 20'000;
constexpr size_t kMostPatterns = 6;

}  // namespace

SchemaCompiler::Object SchemaCompiler::object_shape(const Plain& plain) {
  Object out;
  const auto add = [&](const std::string& name) {
    const auto [at, fresh] = out.index.try_emplace(name, out.names.size());
    if (fresh) {
      out.names.push_back(name);
      out.required.push_back(false);
    }
    return at->second;
  };
  for (const Schema schema : plain)
    if (schema->contains("properties"))
      for (const auto& [name, ignored] : schema->at("properties").items()) add(name);
  for (const Schema schema : plain)
    if (schema->contains("required"))
      for (const auto& name : schema->at("required")) out.required[add(name.get<std::string>())] = true;
  out.minimum = largest(plain, "minProperties");
  out.maximum = smallest(plain, "maxProperties");
  return out;
}

// What the value of a property must be: what names it, else additionalProperties, of every schema.
SchemaCompiler::Conjunction SchemaCompiler::property(const Plain& plain, const std::string& name) {
  std::vector<Schema> out;
  for (const Schema schema : plain) {
    bool named = false;
    if (schema->contains("properties") && schema->at("properties").contains(name)) {
      out.push_back(child(schema, "properties", name, true));
      named = true;
    }
    if (schema->contains("patternProperties"))
      for (const auto& [pattern, ignored] : schema->at("patternProperties").items())
        if (constrain::matches(pattern_machine(schema, "patternProperties", pattern), json_content(name))) {
          out.push_back(child(schema, "patternProperties", pattern, true));
          named = true;
        }
    if (!named && schema->contains("additionalProperties"))
      out.push_back(child(schema, "additionalProperties"));
  }
  return conjunction(std::move(out));
}

SchemaCompiler::Conjunction SchemaCompiler::property_names(const Plain& plain) {
  std::vector<Schema> out;
  for (const Schema schema : plain)
    if (schema->contains("propertyNames")) out.push_back(child(schema, "propertyNames"));
  return conjunction(std::move(out));
}

// One member whose name is none of the shape's: for each set of patterns that a name may match together,
// those names and their values.
NodeId SchemaCompiler::extra_member(const Plain& plain, const Object& shape) {
  struct Pattern {
    Schema schema;
    std::string text;
  };
  std::vector<Pattern> patterns;
  for (const Schema schema : plain)
    if (schema->contains("patternProperties"))
      for (const auto& [text, ignored] : schema->at("patternProperties").items())
        patterns.push_back({schema, text});
  if (patterns.size() > kMostPatterns)
    refuse(patterns[0].schema, "patternProperties", "with more than 6 patterns is not supported");
  const Conjunction names = property_names(plain);

  std::vector<NodeId> members;
  for (size_t chosen = 0; chosen < size_t(1) << patterns.size(); ++chosen) {
    std::vector<Schema> schemas;
    for (const Schema schema : plain) {
      bool named = false;
      for (size_t i = 0; i < patterns.size(); ++i)
        if (chosen >> i & 1 && patterns[i].schema == schema) {
          schemas.push_back(child(schema, "patternProperties", patterns[i].text, true));
          named = true;
        }
      if (!named && schema->contains("additionalProperties"))
        schemas.push_back(child(schema, "additionalProperties"));
    }
    const Conjunction all = conjunction(std::move(schemas));
    if (nothing_fits(all, 4)) continue;
    NodeId key = syntax_.never();
    if (patterns.empty() && shape.names.empty() && names.empty()) {
      key = text_.string();
    } else {
      const Schema place = plain[0];
      const auto limit = [&](std::optional<Machine> machine) {
        if (!machine)
          wrong(place, "", "the names of properties take too many states", ErrorKind::unsupported);
        syntax_.charge(machine->states.size());
        return std::move(*machine);
      };
      Machine keys = limit(machine_of(
          syntax_, syntax_.repeat(json_characters(syntax_, CodePoints::all()), 0, kUnbounded), kMostStates));
      if (!shape.names.empty()) {
        std::vector<NodeId> taken;
        for (const auto& name : shape.names) taken.push_back(syntax_.text(json_content(name)));
        keys = limit(
            subtract(keys, limit(machine_of(syntax_, syntax_.choice(std::move(taken)), 1u << 20)), 1u << 20));
      }
      for (size_t i = 0; i < patterns.size(); ++i) {
        const Machine& pattern = pattern_machine(patterns[i].schema, "patternProperties", patterns[i].text);
        keys = limit(chosen >> i & 1 ? intersect(keys, pattern, kMostStates)
                                     : subtract(keys, pattern, kMostStates));
      }
      std::vector<Machine> named;
      if (!names.empty()) {
        // Names must fit propertyNames: each alternative that lists values or limits strings.
        std::vector<NodeId> fitting;
        for (const Plain& alternative : alternatives(names)) {
          if (const auto values = listed(alternative)) {
            for (const Json& value : *values)
              if (value.is_string() && constrain::matches(keys, json_content(value.get<std::string>())))
                fitting.push_back(syntax_.text("\"" + json_content(value.get<std::string>()) + "\""));
            continue;
          }
          if (!(types(alternative) & 16)) continue;
          fitting.push_back(
              text_.string_of(limit(intersect(keys, string_machine(alternative), kMostStates))));
        }
        key = syntax_.choice(std::move(fitting));
      } else {
        key = text_.string_of(std::move(keys));
      }
    }
    if (key != syntax_.never()) members.push_back(syntax_.sequence({key, text_.colon(), value(all)}));
  }
  return syntax_.choice(std::move(members));
}

NodeId SchemaCompiler::object(const Plain& plain) {
  Object shape = object_shape(plain);
  const Conjunction names = property_names(plain);
  if (shape.names.empty() && shape.minimum == 0 && shape.maximum == kUnbounded && names.empty() &&
      std::none_of(plain.begin(), plain.end(), [](Schema s) {
        return s->contains("additionalProperties") || s->contains("patternProperties");
      }))
    return text_.object();

  struct Member {
    std::string prefix;  // "name":
    RuleId value;
    bool required;
  };
  std::vector<Member> members;
  for (size_t i = 0; i < shape.names.size(); ++i) {
    const std::string& name = shape.names[i];
    NodeId node = syntax_.never();
    if (names.empty() || holds(Json(name), names)) node = value(property(plain, name));
    if (node == syntax_.never()) {
      if (shape.required[i]) return node;
      continue;
    }
    members.push_back({"\"" + json_content(name) + "\":", rule_of(node, name), shape.required[i] != 0});
  }
  const NodeId extra = extra_member(plain, shape);
  const bool open = extra != syntax_.never();
  const RuleId extra_rule = open ? rule_of(extra, "other property") : -1;

  // States are (which members may still come, how many came), the count only as far as it matters.
  const size_t n = members.size();
  const uint32_t counted =
      std::max<uint32_t>({1, shape.minimum, shape.maximum == kUnbounded ? 0 : shape.maximum});
  if (uint64_t(counted) * (n + 1) > kMostStates) {
    for (const Schema schema : plain)
      for (const char* keyword : {"minProperties", "maxProperties"})
        if (schema->contains(keyword)) refuse(schema, keyword, "of this size is not supported");
    wrong(plain[0], "", "the object has too many properties", ErrorKind::unsupported);
  }
  const RuleId space = rule_of(text_.space(), "space");
  Machine m;
  const int32_t begin = m.add(), end = m.add(), closing = m.add();
  m.states[size_t(end)].final = true;
  const auto call = [&](RuleId rule, int32_t from, int32_t to) {
    m.states[size_t(from)].jumps.push_back({Machine::Kind::call, rule, to});
  };
  m.add_text("}", closing, end);
  const int32_t first = int32_t(m.states.size());
  // between: after so many members; member: one must come.
  const auto between = [&](size_t i, uint32_t c) { return first + int32_t(2 * (i * (counted + 1) + c)); };
  const auto member = [&](size_t i, uint32_t c) { return between(i, c) + 1; };
  for (size_t s = 0; s < 2 * (n + 1) * (counted + 1); ++s) m.add();
  const int32_t opened = m.add();
  m.add_text("{", begin, opened);
  call(space, opened, between(0, 0));
  bool may_end = true;  // no required member from i on
  for (size_t i = n + 1; i-- > 0;) {
    if (i < n && members[i].required) may_end = false;
    for (uint32_t c = 0; c <= counted; ++c) {
      if (may_end && c >= shape.minimum) {
        if (c == 0)
          m.states[size_t(between(i, c))].empty.push_back(closing);
        else
          call(space, between(i, c), closing);
      }
      if (c == 0) {
        m.states[size_t(between(i, c))].empty.push_back(member(i, c));
      } else {
        const int32_t comma = m.add();
        m.add_text(",", between(i, c), comma);
        call(space, comma, member(i, c));
      }
      const bool full = shape.maximum != kUnbounded && c >= shape.maximum;
      if (full) continue;
      const uint32_t next = std::min(c + 1, counted);
      if (i == n) {
        if (open) call(extra_rule, member(i, c), between(n, next));
        continue;
      }
      const int32_t named = m.add(), spaced = m.add();
      m.add_text(members[i].prefix, member(i, c), named);
      call(space, named, spaced);
      call(members[i].value, spaced, between(i + 1, next));
      if (!members[i].required) m.states[size_t(member(i, c))].empty.push_back(member(i + 1, c));
    }
  }
  trim(m);
  const NodeId node = syntax_.machine(std::move(m));
  if (node == syntax_.never()) return node;
  const RuleId rule = syntax_.rule("object", true);
  syntax_.define(rule, node);
  return syntax_.call(rule);
}

bool SchemaCompiler::holds_object(const Json& value, const Plain& plain) {
  const Object shape = object_shape(plain);
  if (value.size() < shape.minimum || value.size() > shape.maximum) return false;
  for (size_t i = 0; i < shape.names.size(); ++i)
    if (shape.required[i] && !value.contains(shape.names[i])) return false;
  const Conjunction names = property_names(plain);
  for (const auto& [name, member] : value.items()) {
    if (!names.empty() && !holds(Json(name), names)) return false;
    if (!holds(member, property(plain, name))) return false;
  }
  return true;
}

// prefixItems, or the list that items was in draft 7.
const SchemaCompiler::Json* SchemaCompiler::prefix_of(Schema schema) {
  if (schema->contains("prefixItems")) return &schema->at("prefixItems");
  if (schema->contains("items") && schema->at("items").is_array()) return &schema->at("items");
  return nullptr;
}

size_t SchemaCompiler::prefix_size(const Plain& plain) {
  size_t out = 0;
  for (const Schema schema : plain)
    if (const Json* prefix = prefix_of(schema)) out = std::max(out, prefix->size());
  return out;
}

SchemaCompiler::Conjunction SchemaCompiler::element(const Plain& plain, size_t index) {
  std::vector<Schema> out;
  for (const Schema schema : plain) {
    const Json* prefix = prefix_of(schema);
    const bool by_items = schema->contains("items") && schema->at("items").is_array();
    if (prefix && index < prefix->size())
      out.push_back(
          item(schema, by_items && !schema->contains("prefixItems") ? "items" : "prefixItems", index));
    else if (by_items && schema->contains("additionalItems"))
      out.push_back(child(schema, "additionalItems"));
    else if (schema->contains("items") && !by_items)
      out.push_back(child(schema, "items"));
  }
  return conjunction(std::move(out));
}

NodeId SchemaCompiler::array(const Plain& plain) {
  const uint32_t minimum = largest(plain, "minItems");
  uint32_t maximum = smallest(plain, "maxItems");
  const size_t prefix = prefix_size(plain);
  const bool any_items =
      std::none_of(plain.begin(), plain.end(), [](Schema s) { return s->contains("items"); });
  if (minimum == 0 && maximum == kUnbounded && prefix == 0 && any_items) return text_.array();
  constexpr size_t kMostPrefix = 150;
  if (prefix > kMostPrefix)
    wrong(plain[0], "", "more than 150 prefixItems are not supported", ErrorKind::unsupported);
  Syntax& s = syntax_;
  const NodeId rest = element(plain, prefix).empty() ? text_.any() : value(element(plain, prefix));
  std::vector<NodeId> items;
  for (size_t i = 0; i < prefix && i < maximum; ++i) {
    items.push_back(value(element(plain, i)));
    if (items.back() == s.never()) {
      items.pop_back();
      maximum = uint32_t(i);
    }
  }
  if (rest == s.never()) maximum = std::min(maximum, uint32_t(prefix));
  if (minimum > maximum) return s.never();

  // From the last item to the first; what follows an item is optional from minItems on.
  NodeId tail = s.empty();
  if (maximum > items.size()) {
    const uint32_t known = uint32_t(items.size());
    const uint32_t least = minimum > known ? minimum - known : 0;
    const uint32_t most = maximum == kUnbounded ? kUnbounded : maximum - known;
    const NodeId more = s.sequence({text_.comma(), rest});
    if (known > 0) {
      tail = s.repeat(more, least, most);
    } else {
      tail =
          s.sequence({rest, s.repeat(more, least > 0 ? least - 1 : 0, most == kUnbounded ? most : most - 1)});
      if (least == 0)
        tail = s.choice({s.empty(), s.sequence({tail, text_.space()})});
      else
        tail = s.sequence({tail, text_.space()});
    }
  }
  for (size_t i = items.size(); i-- > 0;) {
    tail = s.sequence({items[i], tail});
    if (i == 0) tail = s.sequence({tail, text_.space()});
    if (i > 0) tail = s.sequence({text_.comma(), tail});
    if (i >= minimum) tail = s.optional(tail);
  }
  const RuleId rule = s.rule("array", true);
  s.define(rule, s.sequence({s.text("["), text_.space(), tail, s.text("]")}));
  return s.call(rule);
}

bool SchemaCompiler::holds_array(const Json& value, const Plain& plain) {
  if (value.size() < largest(plain, "minItems") || value.size() > smallest(plain, "maxItems")) return false;
  for (size_t i = 0; i < value.size(); ++i)
    if (!holds(value[i], element(plain, i))) return false;
  return true;
}

}  // namespace cairn::text::constrain
