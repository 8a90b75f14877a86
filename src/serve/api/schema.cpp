#include "serve/api/schema.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <set>

#include "formats/untrusted_text.h"
#include "serve/api/api_error.h"

namespace cairn::serve {
namespace {

constexpr std::string_view kReference = "#/components/schemas/";

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

// What a value is, for messages; never the text of a long one.
std::string shown(const Json& value) {
  switch (value.type()) {
    case Json::value_t::object: return "an object";
    case Json::value_t::array: return "an array";
    case Json::value_t::string: return "'" + formats::shown(value.get_ref<const std::string&>(), 60) + "'";
    default: return dump(value);
  }
}

std::string_view article(std::string_view type) {
  if (type == "integer") return "an integer";
  if (type == "object") return "an object";
  if (type == "array") return "an array";
  if (type == "string") return "a string";
  if (type == "number") return "a number";
  if (type == "boolean") return "true or false";
  return "null";
}

bool is_integer(const Json& value) {
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const double d = value.get<double>();
  return std::abs(d) <= 0x1p53 && d == std::floor(d);  // JSON Schema: 1.0 is an integer
}

bool has_type(std::string_view type, const Json& value) {
  if (type == "integer") return is_integer(value);
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  return value.is_null();
}

// The types that a schema without anyOf allows; empty: any.
std::vector<std::string> types_of(const Json& schema) {
  const Json* type = find(schema, "type");
  if (!type) return {};
  if (type->is_string()) return {type->get<std::string>()};
  return type->get<std::vector<std::string>>();
}

std::string list_of_types(const std::vector<std::string>& types) {
  std::string text;
  size_t shown_types = 0;
  const auto total =
      size_t(std::count_if(types.begin(), types.end(), [](const auto& t) { return t != "null"; }));
  for (const auto& type : types) {
    if (type == "null") continue;
    if (shown_types > 0) text += shown_types + 1 == total ? " or " : ", ";
    text += article(type);
    ++shown_types;
  }
  return text.empty() ? "null" : text;
}

std::string reason_of(const Json& schema) {
  const Json* reason = find(schema, "x-cairn-reason");
  return reason ? ": " + reason->get<std::string>() : std::string();
}

std::string named(const std::string& place) { return place.empty() ? "the body" : "'" + place + "'"; }

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (uint8_t(c) & 0xc0) != 0x80; });
}

}  // namespace

Schemas::Schemas(Json named_schemas) : schemas_(std::move(named_schemas)) {
  for (auto& schema : schemas_) prepare(schema);
}

void Schemas::prepare(Json& schema) {
  [[maybe_unused]] static const std::set<std::string> kKnown = {
      "type",        "enum",           "const",
      "minimum",     "maximum",        "exclusiveMinimum",
      "minLength",   "maxLength",      "pattern",
      "minItems",    "maxItems",       "items",
      "properties",  "required",       "anyOf",
      "$ref",        "default",        "title",
      "description", "x-cairn-reason", "additionalProperties",
      "examples",    "maxProperties"};
  for (const auto& [key, value] : schema.items()) {
    assert(kKnown.contains(key));
    (void)value;
  }
  if (const Json* reference = find(schema, "$ref")) {
    [[maybe_unused]] const auto name = reference->get<std::string>().substr(kReference.size());
    assert(schemas_.contains(name));
  }
  if (const Json* pattern = find(schema, "pattern")) {
    const auto text = pattern->get<std::string>();
    patterns_.try_emplace(text, text, "schema");
  }
  if (auto* any = const_cast<Json*>(find(schema, "anyOf")))
    for (auto& branch : *any) prepare(branch);
  if (auto* items = const_cast<Json*>(find(schema, "items"))) prepare(*items);
  if (auto* more = const_cast<Json*>(find(schema, "additionalProperties")); more && more->is_object())
    prepare(*more);
  auto* properties = const_cast<Json*>(find(schema, "properties"));
  if (!properties) return;
  const Json* required = find(schema, "required");
  for (auto& [name, property] : properties->items()) {
    prepare(property);
    if (required && std::find(required->begin(), required->end(), name) != required->end()) continue;
    if (const Json* type = find(property, "type")) {
      auto types = types_of(property);
      if (std::find(types.begin(), types.end(), "null") == types.end()) {
        (void)type;
        types.push_back("null");
        property["type"] = types;
        if (auto* values = const_cast<Json*>(find(property, "enum"))) values->push_back(nullptr);
      }
    } else if (auto* any = const_cast<Json*>(find(property, "anyOf"))) {
      any->push_back({{"type", "null"}});
    } else if (find(property, "$ref")) {
      Json branches = Json::array({property, {{"type", "null"}}});
      Json described = Json::object();
      if (const Json* description = find(property, "description")) described["description"] = *description;
      branches[0].erase("description");
      described["anyOf"] = std::move(branches);
      property = std::move(described);
    }
  }
}

const Json& Schemas::resolve(const Json& schema) const {
  const Json* at = &schema;
  while (const Json* reference = find(*at, "$ref"))
    at = &schemas_.at(reference->get_ref<const std::string&>().substr(kReference.size()));
  return *at;
}

void Schemas::check(std::string_view name, const Json& value) const {
  check(schemas_.at(std::string(name)), value, "");
}

bool Schemas::fits_type(const Json& unresolved, const Json& value) const {
  const Json& schema = resolve(unresolved);
  if (const Json* any = find(schema, "anyOf"))
    return std::any_of(any->begin(), any->end(),
                       [&](const Json& branch) { return fits_type(branch, value); });
  const auto types = types_of(schema);
  return types.empty() ||
         std::any_of(types.begin(), types.end(), [&](const auto& t) { return has_type(t, value); });
}

void Schemas::check(const Json& unresolved, const Json& value, const std::string& place) const {
  const Json& schema = resolve(unresolved);
  if (find(schema, "anyOf")) return check_any(schema, value, place);
  const auto types = types_of(schema);
  if (!types.empty() &&
      std::none_of(types.begin(), types.end(), [&](const auto& t) { return has_type(t, value); }))
    refuse(400, place, reason_of(schema).empty() ? "invalid_type" : "unsupported_value",
           "{} is {}; it must be {}{}", named(place), shown(value), list_of_types(types), reason_of(schema));
  if (value.is_null()) return;
  if (const Json* one = find(schema, "const"); one && value != *one)
    refuse(400, place, "invalid_value", "{} is {}; it must be {}{}", named(place), shown(value), shown(*one),
           reason_of(schema));
  if (const Json* values = find(schema, "enum");
      values && std::find(values->begin(), values->end(), value) == values->end()) {
    std::string list;
    for (const auto& v : *values)
      if (!v.is_null()) list += (list.empty() ? "" : ", ") + shown(v);
    refuse(400, place, reason_of(schema).empty() ? "invalid_value" : "unsupported_value",
           "{} is {}; supported: {}{}", named(place), shown(value), list.empty() ? "null" : list,
           reason_of(schema));
  }
  if (value.is_number()) check_number(schema, value, place);
  if (value.is_string()) check_string(schema, value, place);
  if (value.is_array()) check_array(schema, value, place);
  if (value.is_object()) check_object(schema, value, place);
}

// The branch that the value means is found by its type, and among objects by their constant members ("type",
// "role").
void Schemas::check_any(const Json& schema, const Json& value, const std::string& place) const {
  const Json& branches = schema.at("anyOf");
  std::vector<const Json*> fitting;
  std::vector<std::string> types;
  for (const auto& branch : branches) {
    if (fits_type(branch, value)) fitting.push_back(&branch);
    for (const auto& type : types_of(resolve(branch)))
      if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
  }
  if (fitting.empty())
    refuse(400, place, "invalid_type", "{} is {}; it must be {}{}", named(place), shown(value),
           list_of_types(types), reason_of(schema));
  if (fitting.size() > 1 && value.is_array() && !value.empty()) {
    std::vector<const Json*> by_item;
    for (const Json* branch : fitting)
      if (const Json* items = find(resolve(*branch), "items"); !items || fits_type(*items, value[0]))
        by_item.push_back(branch);
    if (!by_item.empty()) fitting = by_item;
  }
  if (fitting.size() > 1 && value.is_object()) {
    const auto tagged = [&](const Json& branch, bool want_match) {
      const Json* properties = find(resolve(branch), "properties");
      if (!properties) return false;
      bool has_tag = false;
      for (const auto& [name, property] : properties->items()) {
        const Json* one = find(property, "const");
        if (!one) continue;
        has_tag = true;
        const Json* given = find(value, name.c_str());
        if (!given || *given != *one) return !want_match;
      }
      return has_tag && want_match;
    };
    for (const Json* branch : fitting)
      if (tagged(*branch, true)) return check(*branch, value, place);
    std::vector<const Json*> untagged;
    for (const Json* branch : fitting)
      if (!tagged(*branch, false)) untagged.push_back(branch);
    if (untagged.empty()) {
      std::string names, member;
      for (const Json* branch : fitting) {
        for (const auto& [name, property] : resolve(*branch).at("properties").items())
          if (const Json* one = find(property, "const")) {
            member = name;
            names += (names.empty() ? "" : ", ") + shown(*one);
          }
      }
      const std::string inner = place.empty() ? member : place + "." + member;
      const Json* given = find(value, member.c_str());
      refuse(400, inner, given ? "unsupported_value" : "missing_required_parameter",
             "'{}' is {}; supported: {}{}", inner, given ? shown(*given) : "missing", names,
             reason_of(schema));
    }
    fitting = untagged;
  }
  // The last branch's complaint stands for all of them.
  for (size_t i = 0; i + 1 < fitting.size(); ++i) {
    try {
      return check(*fitting[i], value, place);
    } catch (const ApiError&) {
    }
  }
  check(*fitting.back(), value, place);
}

void Schemas::check_number(const Json& schema, const Json& value, const std::string& place) const {
  const auto less = [](const Json& a, const Json& b) { return a < b; };  // exact between integers
  const Json* lowest = find(schema, "minimum");
  const Json* above = find(schema, "exclusiveMinimum");
  const Json* highest = find(schema, "maximum");
  const bool fits = (!lowest || !less(value, *lowest)) && (!above || less(*above, value)) &&
                    (!highest || !less(*highest, value)) &&
                    (!value.is_number_float() || std::isfinite(value.get<double>()));
  if (fits) return;
  std::string range;
  if (lowest) range = "at least " + dump(*lowest);
  if (above) range = "above " + dump(*above);
  if (highest) range += (range.empty() ? "at most " : " and at most ") + dump(*highest);
  refuse(400, place, "out_of_range", "{} is {}; it must be {}{}", named(place), dump(value), range,
         reason_of(schema));
}

void Schemas::check_string(const Json& schema, const Json& value, const std::string& place) const {
  const auto& text = value.get_ref<const std::string&>();
  const Json* shortest = find(schema, "minLength");
  const Json* longest = find(schema, "maxLength");
  if (shortest || longest) {
    const int64_t length = code_points(text);
    if (shortest && length < shortest->get<int64_t>())
      refuse(400, place, "string_too_short", "{} has {} characters; it must have at least {}", named(place),
             length, shortest->get<int64_t>());
    if (longest && length > longest->get<int64_t>())
      refuse(400, place, "string_too_long", "{} has {} characters; it may have at most {}", named(place),
             length, longest->get<int64_t>());
  }
  if (const Json* pattern = find(schema, "pattern")) {
    const auto& regex = patterns_.find(pattern->get_ref<const std::string&>())->second;
    // Our patterns mean the whole text; `$` alone would let a final newline pass.
    const auto cuts = regex.cut(text);
    if (std::none_of(cuts.begin(), cuts.end(),
                     [&](const auto& cut) { return cut.match && cut.begin == 0 && cut.end == text.size(); }))
      refuse(400, place, "invalid_value", "{} is {}; it must match {}", named(place), shown(value),
             pattern->get<std::string>());
  }
}

void Schemas::check_array(const Json& schema, const Json& value, const std::string& place) const {
  const Json* fewest = find(schema, "minItems");
  const Json* most = find(schema, "maxItems");
  const auto size = int64_t(value.size());
  if (fewest && size < fewest->get<int64_t>())
    refuse(400, place, "array_too_short", "{} has {} items; it must have at least {}", named(place), size,
           fewest->get<int64_t>());
  if (most && size > most->get<int64_t>())
    refuse(400, place, "array_too_long", "{} has {} items; it may have at most {}", named(place), size,
           most->get<int64_t>());
  const Json* items = find(schema, "items");
  if (!items) return;
  for (size_t i = 0; i < value.size(); ++i) check(*items, value[i], fmt::format("{}[{}]", place, i));
}

void Schemas::check_object(const Json& schema, const Json& value, const std::string& place) const {
  const auto inside = [&](std::string_view name) {
    return place.empty() ? std::string(name) : fmt::format("{}.{}", place, name);
  };
  // What kind of object it is comes first: the rest of another kind does not matter.
  if (const Json* kinds = find(schema, "properties"))
    for (const auto& [name, property] : kinds->items())
      if (const Json* given = find(property, "const") || name == "type" ? find(value, name.c_str()) : nullptr)
        check(property, *given, inside(name));
  if (const Json* required = find(schema, "required"))
    for (const auto& name : *required)
      if (!value.contains(name.get_ref<const std::string&>()))
        refuse(400, inside(name.get<std::string>()), "missing_required_parameter", "'{}' is missing",
               inside(name.get<std::string>()));
  if (const Json* most = find(schema, "maxProperties"); most && int64_t(value.size()) > most->get<int64_t>())
    refuse(400, place, "object_too_large", "{} has {} members; it may have at most {}", named(place),
           value.size(), most->get<int64_t>());
  const Json* properties = find(schema, "properties");
  const Json* more = find(schema, "additionalProperties");
  const bool closed = more && more->is_boolean() && !more->get<bool>();
  if (more && !more->is_object()) more = nullptr;
  if (!properties && !more) return;
  for (const auto& [name, member] : value.items()) {
    const Json* property = properties ? find(*properties, name.c_str()) : nullptr;
    if (property)
      check(*property, member, inside(name));
    else if (more)
      check(*more, member, inside(formats::shown(name, 60)));
    else if (closed)
      refuse(400, inside(formats::shown(name, 60)), "unknown_parameter", "'{}' is not known here{}",
             inside(formats::shown(name, 60)), reason_of(schema));
  }
}

}  // namespace cairn::serve
