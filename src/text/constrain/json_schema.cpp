#include "text/constrain/json_schema.h"

#include <algorithm>
#include <set>

#include "text/constrain/notations.h"

namespace cairn::text::constrain {

using Json = nlohmann::ordered_json;

namespace {

enum Type : unsigned {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kAll = 127
};

const Json& everything() {
  static const Json schema(true);
  return schema;
}

const std::set<std::string, std::less<>>& annotations() {
  static const std::set<std::string, std::less<>> names = {
      "$schema", "$comment",    "$id",     "id",       "$anchor", "$defs",      "definitions", "$vocabulary",
      "title",   "description", "default", "examples", "example", "deprecated", "readOnly",    "writeOnly"};
  return names;
}

const std::set<std::string, std::less<>>& executed() {
  static const std::set<std::string, std::less<>> names = {"$ref",
                                                           "allOf",
                                                           "anyOf",
                                                           "oneOf",
                                                           "type",
                                                           "enum",
                                                           "const",
                                                           "properties",
                                                           "required",
                                                           "additionalProperties",
                                                           "patternProperties",
                                                           "propertyNames",
                                                           "minProperties",
                                                           "maxProperties",
                                                           "items",
                                                           "prefixItems",
                                                           "additionalItems",
                                                           "minItems",
                                                           "maxItems",
                                                           "minLength",
                                                           "maxLength",
                                                           "pattern",
                                                           "format",
                                                           "minimum",
                                                           "maximum",
                                                           "exclusiveMinimum",
                                                           "exclusiveMaximum",
                                                           "multipleOf"};
  return names;
}

unsigned type_bit(std::string_view name) {
  if (name == "null") return kNull;
  if (name == "boolean") return kBoolean;
  if (name == "integer") return kInteger;
  if (name == "number") return kInteger | kFraction;
  if (name == "string") return kString;
  if (name == "array") return kArray;
  if (name == "object") return kObject;
  return 0;
}

// Of a step of a JSON pointer.
std::string escaped(std::string_view step) {
  std::string out;
  for (const char c : step) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

std::string unescaped(std::string_view step) {
  std::string out;
  for (size_t i = 0; i < step.size(); ++i) {
    if (step[i] == '%' && i + 2 < step.size() && std::isxdigit(uint8_t(step[i + 1])) &&
        std::isxdigit(uint8_t(step[i + 2]))) {
      out += char(std::stoi(std::string(step.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      out += step[i];
    }
  }
  for (const auto& [form, c] : {std::pair("~1", '/'), std::pair("~0", '~')})
    for (size_t at = 0; (at = out.find(form, at)) != out.npos; ++at) out.replace(at, 2, 1, c);
  return out;
}

}  // namespace

SchemaCompiler::SchemaCompiler(Syntax& syntax, const Json& root)
    : syntax_(syntax), text_(syntax), root_(root) {
  paths_[&root] = "#";
  paths_[&everything()] = "#";
}

void SchemaCompiler::wrong(Schema schema, std::string_view keyword, std::string_view what,
                           ErrorKind kind) const {
  const auto path = paths_.find(schema);
  const std::string place = path == paths_.end() ? "#" : path->second;
  if (keyword.empty()) fail(kind, "{}: {}", place, what);
  fail(kind, "{}/{}: {}", place, escaped(keyword), what);
}

void SchemaCompiler::refuse(Schema schema, std::string_view keyword, std::string_view why) const {
  wrong(schema, keyword, std::string(keyword) + " " + std::string(why), ErrorKind::unsupported);
}

SchemaCompiler::Schema SchemaCompiler::child(Schema parent, const std::string& keyword,
                                             const std::string& name, bool named) {
  const Json& at = named ? parent->at(keyword).at(name) : parent->at(keyword);
  if (paths_.find(&at) == paths_.end())
    paths_[&at] = paths_[parent] + "/" + escaped(keyword) + (named ? "/" + escaped(name) : "");
  return &at;
}

SchemaCompiler::Schema SchemaCompiler::item(Schema parent, const std::string& keyword, size_t index) {
  const Json& at = parent->at(keyword).at(index);
  if (paths_.find(&at) == paths_.end())
    paths_[&at] = paths_[parent] + "/" + escaped(keyword) + "/" + std::to_string(index);
  return &at;
}

void SchemaCompiler::check_keywords(Schema schema) {
  if (checked_[schema]) return;
  checked_[schema] = true;
  const auto need = [&](const char* keyword, bool holds, const char* what) {
    if (schema->contains(keyword) && !holds) wrong(schema, keyword, std::string("must be ") + what);
  };
  for (const auto& [keyword, value] : schema->items()) {
    if (keyword.starts_with("x-")) continue;  // an extension's own notes
    if (keyword == "$id" && schema != &root_)
      refuse(schema, keyword, "of a schema inside another is not supported");
    if (annotations().contains(keyword)) continue;
    if (keyword == "uniqueItems" && value == false) continue;
    if (keyword == "nullable" && value == false) continue;
    if (!executed().contains(keyword)) refuse(schema, keyword);
    if (keyword == "properties" || keyword == "patternProperties") {
      if (!value.is_object()) wrong(schema, keyword, "must be an object of schemas");
    } else if (keyword == "allOf" || keyword == "anyOf" || keyword == "oneOf") {
      if (!value.is_array() || value.empty()) wrong(schema, keyword, "must be a list of schemas, not empty");
    } else if (keyword == "prefixItems") {
      if (!value.is_array()) wrong(schema, keyword, "must be a list of schemas");
    } else if (keyword == "required") {
      if (!value.is_array() ||
          !std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); }))
        wrong(schema, keyword, "must be a list of names");
    } else if (keyword == "enum") {
      if (!value.is_array() || value.empty()) wrong(schema, keyword, "must be a list of values, not empty");
    } else if (keyword == "$ref" || keyword == "pattern" || keyword == "format") {
      if (!value.is_string()) wrong(schema, keyword, "must be a text");
    } else if (keyword == "minimum" || keyword == "maximum" || keyword == "exclusiveMinimum" ||
               keyword == "exclusiveMaximum" || keyword == "multipleOf") {
      const auto number = decimal(value);
      if (!number) wrong(schema, keyword, "must be a number (of no more than 400 digits)");
      if (keyword == "multipleOf" && (number->negative || *number == Decimal{}))
        wrong(schema, keyword, "must be larger than 0");
    }
  }
  if (schema->contains("type")) {
    const Json& type = schema->at("type");
    const auto known = [](const Json& v) {
      return v.is_string() && type_bit(v.get_ref<const std::string&>());
    };
    need("type",
         known(type) || (type.is_array() && !type.empty() && std::all_of(type.begin(), type.end(), known)),
         "one or a list of null, boolean, integer, number, string, array, object");
  }
}

// "#", "#/a/b" and "#anchor", in this document.
SchemaCompiler::Schema SchemaCompiler::resolve(Schema schema, const std::string& reference) {
  std::string fragment = reference;
  if (root_.is_object() && root_.contains("$id") && root_["$id"].is_string()) {
    std::string own = root_["$id"].get<std::string>();
    if (own.ends_with('#')) own.pop_back();
    if (!own.empty() && (fragment == own || fragment.starts_with(own + "#"))) fragment.erase(0, own.size());
    if (fragment.empty()) fragment = "#";
  }
  if (!fragment.starts_with('#')) refuse(schema, "$ref", "to another document is not supported");
  fragment.erase(0, 1);
  if (!fragment.empty() && fragment[0] != '/') {
    // An anchor: looked for in all of the document, and there must be one.
    std::vector<std::pair<Schema, std::string>> todo = {{&root_, "#"}}, found;
    while (!todo.empty()) {
      const auto [at, path] = todo.back();
      todo.pop_back();
      if (at->is_object()) {
        for (const char* keyword : {"$anchor", "$id"}) {
          const auto name = at->find(keyword);
          if (name != at->end() && name->is_string() &&
              name->get_ref<const std::string&>() == (keyword[1] == 'i' ? "#" + fragment : fragment))
            found.push_back({at, path});
        }
        for (const auto& [key, value] : at->items())
          if (value.is_structured() && key != "enum" && key != "const")
            todo.push_back({&value, path + "/" + escaped(key)});
      } else if (at->is_array()) {
        for (size_t i = 0; i < at->size(); ++i) todo.push_back({&(*at)[i], path + "/" + std::to_string(i)});
      }
    }
    if (found.size() != 1) wrong(schema, "$ref", "there is not exactly one anchor " + fragment);
    paths_.try_emplace(found[0].first, found[0].second);
    return found[0].first;
  }
  Schema at = &root_;
  std::string path = "#";
  for (size_t i = 0; i < fragment.size();) {
    const size_t end = std::min(fragment.find('/', i + 1), fragment.size());
    const std::string step = unescaped(std::string_view(fragment).substr(i + 1, end - i - 1));
    if (at->is_object() && at != &root_ && at->contains("$id") && (*at)["$id"].is_string())
      refuse(schema, "$ref", "into a schema with an $id of its own is not supported");
    Schema next = nullptr;
    if (at->is_object() && at->contains(step)) {
      next = &(*at)[step];
    } else if (at->is_array() && !step.empty() && step.size() < 7 &&
               std::all_of(step.begin(), step.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
               size_t(std::stoi(step)) < at->size()) {
      next = &(*at)[size_t(std::stoi(step))];
    }
    if (!next) wrong(schema, "$ref", "there is nothing at " + reference);
    path += "/" + escaped(step);
    at = next;
    i = end;
  }
  paths_.try_emplace(at, path);
  return at;
}

SchemaCompiler::Conjunction SchemaCompiler::conjunction(std::vector<Schema> schemas) {
  std::erase(schemas, &everything());
  std::sort(schemas.begin(), schemas.end());
  schemas.erase(std::unique(schemas.begin(), schemas.end()), schemas.end());
  return schemas;
}

std::vector<SchemaCompiler::Plain> SchemaCompiler::product(const std::vector<Plain>& a,
                                                           const std::vector<Plain>& b, Schema place) {
  constexpr size_t kMost = 512;
  if (a.size() * b.size() > kMost)
    wrong(place, "", "anyOf and oneOf combine to more than 512 alternatives", ErrorKind::unsupported);
  std::vector<Plain> out;
  for (const Plain& x : a)
    for (const Plain& y : b) {
      Plain joined = x;
      for (const Schema s : y)
        if (std::find(joined.begin(), joined.end(), s) == joined.end()) joined.push_back(s);
      syntax_.charge(joined.size());
      out.push_back(std::move(joined));
    }
  return out;
}

std::vector<SchemaCompiler::Plain> SchemaCompiler::expand(Schema schema, std::vector<Schema>& open) {
  if (schema->is_boolean()) return schema->get<bool>() ? std::vector<Plain>{{}} : std::vector<Plain>{};
  if (!schema->is_object()) wrong(schema, "", "a schema must be an object, true or false");
  if (std::find(open.begin(), open.end(), schema) != open.end())
    wrong(schema, "", "the schema refers to itself without anything in between");
  if (open.size() > size_t(kDeepest)) wrong(schema, "", "schemas are nested too deeply");
  check_keywords(schema);
  open.push_back(schema);
  std::vector<Plain> out = {{schema}};
  if (schema->contains("$ref"))
    out = product(out, expand(resolve(schema, schema->at("$ref").get<std::string>()), open), schema);
  if (schema->contains("allOf"))
    for (size_t i = 0; i < schema->at("allOf").size(); ++i)
      out = product(out, expand(item(schema, "allOf", i), open), schema);
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (!schema->contains(keyword)) continue;
    std::vector<std::vector<Plain>> branches;
    std::vector<Plain> any;
    for (size_t i = 0; i < schema->at(keyword).size(); ++i) {
      branches.push_back(expand(item(schema, keyword, i), open));
      any.insert(any.end(), branches.back().begin(), branches.back().end());
    }
    if (keyword[0] == 'o') check_one_of(schema, branches);
    out = product(out, any, schema);
  }
  open.pop_back();
  return out;
}

std::vector<SchemaCompiler::Plain> SchemaCompiler::alternatives(const Conjunction& all) {
  std::vector<Plain> out = {{}};
  for (const Schema schema : all) {
    std::vector<Schema> open;
    out = product(out, expand(schema, open), schema);
  }
  return out;
}

// oneOf is anyOf when no value fits two of its branches; anything else is refused.
void SchemaCompiler::check_one_of(Schema schema, const std::vector<std::vector<Plain>>& branches) {
  if (std::exchange(checked_one_of_[schema], true))
    return;  // or being checked, in a schema that holds itself
  for (size_t i = 0; i < branches.size(); ++i)
    for (size_t j = i + 1; j < branches.size(); ++j)
      for (const Plain& a : branches[i])
        for (const Plain& b : branches[j]) {
          Plain both = {schema};
          both.insert(both.end(), a.begin(), a.end());
          for (const Schema s : b)
            if (std::find(both.begin(), both.end(), s) == both.end()) both.push_back(s);
          if (!impossible(both, 0))
            refuse(schema, "oneOf",
                   "is supported only where no value can fit two of its schemas; " + std::to_string(i) +
                       " and " + std::to_string(j) +
                       " may overlap (use anyOf, or tell them apart by type, const or a "
                       "required property)");
        }
}

unsigned SchemaCompiler::types(const Plain& plain) {
  unsigned out = kAll;
  for (const Schema schema : plain) {
    if (!schema->contains("type")) continue;
    const Json& type = schema->at("type");
    unsigned own = 0;
    if (type.is_string()) {
      own = type_bit(type.get_ref<const std::string&>());
    } else {
      for (const Json& name : type) own |= type_bit(name.get_ref<const std::string&>());
    }
    out &= own;
  }
  return out;
}

std::optional<std::vector<Json>> SchemaCompiler::listed(const Plain& plain) {
  for (const Schema schema : plain) {
    const bool is_const = schema->contains("const");
    if (!is_const && !schema->contains("enum")) continue;
    std::vector<Json> out;
    for (const Json& value :
         is_const ? std::vector<Json>{schema->at("const")} : schema->at("enum").get<std::vector<Json>>())
      if (holds_plain(value, plain, true) && std::find(out.begin(), out.end(), value) == out.end())
        out.push_back(value);
    return out;
  }
  return std::nullopt;
}

bool SchemaCompiler::holds(const Json& value, const Conjunction& all) {
  for (const Plain& plain : alternatives(all))
    if (holds_plain(value, plain, true)) return true;
  return false;
}

bool SchemaCompiler::holds_plain(const Json& value, const Plain& plain, bool with_lists) {
  if (++depth_ > 2 * kDeepest) wrong(&root_, "", "schemas are nested too deeply");
  struct Leave {
    int& depth;
    ~Leave() { --depth; }
  } leave{depth_};
  syntax_.charge(1);
  if (with_lists)
    for (const Schema schema : plain) {
      if (schema->contains("const") && schema->at("const") != value) return false;
      if (schema->contains("enum")) {
        const Json& list = schema->at("enum");
        if (std::find(list.begin(), list.end(), value) == list.end()) return false;
      }
    }
  const unsigned type = types(plain);
  if (value.is_null()) return type & kNull;
  if (value.is_boolean()) return type & kBoolean;
  if (value.is_number()) {
    const auto number = decimal(value);
    if (!number) wrong(plain.empty() ? &root_ : plain[0], "", "a number has more than 400 digits");
    return type & (number->fraction.empty() ? kInteger : kFraction) &&
           constrain::holds(range(plain, false), *number);
  }
  if (value.is_string()) {
    if (!(type & kString)) return false;
    const auto limits = string_limits(plain);
    const auto& text = value.get_ref<const std::string&>();
    uint32_t length = 0;
    for (const char c : text) length += (uint8_t(c) & 0xc0) != 0x80;
    if (length < limits.minimum || length > limits.maximum) return false;
    return !limits.patterns || matches(string_machine(plain), json_content(text));
  }
  if (value.is_array()) return type & kArray && holds_array(value, plain);
  return type & kObject && holds_object(value, plain);
}

// Whether certainly nothing fits; false also where that is not found out.
bool SchemaCompiler::nothing_fits(const Conjunction& all, int depth) {
  for (const Plain& plain : alternatives(all))
    if (!impossible(plain, depth)) return false;
  return true;
}

bool SchemaCompiler::impossible(const Plain& plain, int depth) {
  constexpr int kLookAhead = 6;
  if (depth > kLookAhead) return false;
  syntax_.charge(plain.size());
  if (const auto values = listed(plain)) return values->empty();
  const unsigned type = types(plain);
  if (type & (kNull | kBoolean)) return false;
  if (type & (kInteger | kFraction)) {
    const NumberRange r = range(plain, !(type & kFraction));
    if (!(r.least && r.most)) return false;
    const int order = compare(*r.least, *r.most);
    if (order < 0 || (order == 0 && !r.above_least && !r.below_most)) return false;
  }
  if (type & kString) {
    const auto limits = string_limits(plain);
    if (limits.minimum <= limits.maximum && !(limits.patterns && is_empty(string_machine(plain))))
      return false;
  }
  if (type & kArray) {
    const uint32_t minimum = largest(plain, "minItems");
    bool none = minimum > smallest(plain, "maxItems");
    for (uint32_t i = 0; i < std::min<uint32_t>(minimum, 8) && !none; ++i)
      none = nothing_fits(element(plain, i), depth + 1);
    if (!none) return false;
  }
  if (type & kObject) {
    const Object shape = object_shape(plain);
    bool none = shape.minimum > shape.maximum;
    for (size_t i = 0; i < shape.names.size() && !none; ++i)
      if (shape.required[i]) none = nothing_fits(property(plain, shape.names[i]), depth + 1);
    if (!none) return false;
  }
  return true;
}

NodeId SchemaCompiler::value(const Conjunction& all) {
  if (all.empty()) return text_.any();
  if (const auto known = rules_.find(all); known != rules_.end()) return syntax_.call(known->second);
  if (++depth_ > kDeepest) wrong(all[0], "", "schemas are nested too deeply");
  const RuleId rule = syntax_.rule(paths_[all[0]]);
  rules_[all] = rule;
  std::vector<NodeId> nodes;
  for (const Plain& plain : alternatives(all)) nodes.push_back(plain_value(plain));
  const NodeId body = syntax_.choice(std::move(nodes));
  syntax_.define(rule, body);
  --depth_;
  if (body == syntax_.never()) return body;
  return syntax_.node(body).kind == Syntax::Kind::call ? body : syntax_.call(rule);
}

NodeId SchemaCompiler::plain_value(const Plain& plain) {
  std::vector<NodeId> nodes;
  if (const auto values = listed(plain)) {
    for (const Json& v : *values) nodes.push_back(text_.literal(v));
    return syntax_.choice(std::move(nodes));
  }
  const unsigned type = types(plain);
  if (type & kNull) nodes.push_back(syntax_.text("null"));
  if (type & kBoolean) nodes.push_back(syntax_.choice({syntax_.text("true"), syntax_.text("false")}));
  if (type & (kInteger | kFraction)) nodes.push_back(number(plain, !(type & kFraction)));
  if (type & kString) nodes.push_back(string(plain));
  if (type & kArray) nodes.push_back(array(plain));
  if (type & kObject) nodes.push_back(object(plain));
  return syntax_.choice(std::move(nodes));
}

RuleId SchemaCompiler::rule_of(NodeId node, const std::string& name) {
  if (syntax_.node(node).kind == Syntax::Kind::call) return syntax_.node(node).what;
  const RuleId rule = syntax_.rule(name);
  syntax_.define(rule, node);
  return rule;
}

RuleId SchemaCompiler::compile() {
  const RuleId rule = syntax_.rule("json");
  const NodeId body = value(conjunction({&root_}));
  if (body == syntax_.never()) wrong(&root_, "", "no value fits the schema");
  syntax_.define(rule, body);
  return rule;
}

RuleId add_json_schema(Syntax& syntax, const Json& schema) {
  return SchemaCompiler(syntax, schema).compile();
}

}  // namespace cairn::text::constrain
