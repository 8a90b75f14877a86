#include "text/answer/tool_schema.h"

#include "text/answer/literal_reader.h"

namespace cairn::text::answer {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostDepth = 8;  // of references and alternatives; deeper says nothing

unsigned type_named(const std::string& name) {
  if (name == "string") return kString;
  if (name == "number" || name == "integer") return kNumber;
  if (name == "boolean") return kBoolean;
  if (name == "null") return kNull;
  if (name == "object") return kObject;
  if (name == "array") return kArray;
  return 0;
}

unsigned type_of_value(const Json& value) {
  if (value.is_string()) return kString;
  if (value.is_number()) return kNumber;
  if (value.is_boolean()) return kBoolean;
  if (value.is_null()) return kNull;
  return value.is_object() ? kObject : kArray;
}

unsigned types_at(const Json& schema, const Json& root, int depth) {
  if (!schema.is_object() || depth > kMostDepth) return 0;
  if (const auto type = schema.find("type"); type != schema.end()) {
    if (type->is_string()) return type_named(type->get<std::string>());
    unsigned types = 0;
    if (type->is_array())
      for (const Json& one : *type)
        if (one.is_string()) types |= type_named(one.get<std::string>());
    return types;
  }
  if (const auto value = schema.find("const"); value != schema.end()) return type_of_value(*value);
  if (const auto values = schema.find("enum"); values != schema.end() && values->is_array()) {
    unsigned types = 0;
    for (const Json& value : *values) types |= type_of_value(value);
    return types;
  }
  if (const auto ref = schema.find("$ref"); ref != schema.end() && ref->is_string()) {
    const std::string target = ref->get<std::string>();
    if (target.starts_with("#/")) {
      try {
        const Json::json_pointer pointer(target.substr(1));
        if (root.contains(pointer)) return types_at(root.at(pointer), root, depth + 1);
      } catch (const Json::exception&) {  // not a pointer: says nothing
      }
    }
    return 0;
  }
  for (const char* alternatives : {"anyOf", "oneOf"})
    if (const auto list = schema.find(alternatives); list != schema.end() && list->is_array()) {
      unsigned types = 0;
      for (const Json& one : *list) {
        const unsigned some = types_at(one, root, depth + 1);
        if (some == 0) return 0;
        types |= some;
      }
      return types;
    }
  if (const auto all = schema.find("allOf"); all != schema.end() && all->is_array())
    for (const Json& one : *all)
      if (const unsigned types = types_at(one, root, depth + 1)) return types;
  return 0;
}

}  // namespace

const Json& function_of(const Json& tool) {
  if (tool.is_object())
    if (const auto function = tool.find("function"); function != tool.end() && function->is_object())
      return *function;
  return tool;
}

std::string name_of(const Json& tool) {
  const Json& function = function_of(tool);
  if (!function.is_object()) return "";
  const auto name = function.find("name");
  return name != function.end() && name->is_string() ? name->get<std::string>() : "";
}

Json parameters_of(const Json& tool) {
  const Json& function = function_of(tool);
  if (function.is_object())
    for (const char* key : {"parameters", "input_schema"})
      if (const auto found = function.find(key);
          found != function.end() && found->is_object() && !found->empty())
        return *found;
  return {{"type", "object"}};
}

unsigned types_of(const Json& schema, const Json& root) { return types_at(schema, root, 0); }

ToolSchemas::ToolSchemas(const Json& tools) : tools_(tools.is_array() ? tools : Json::array()) {}

const Json* ToolSchemas::find(std::string_view name) const {
  for (const Json& tool : tools_)
    if (!name.empty() && name_of(tool) == name) return &tool;
  return nullptr;
}

unsigned ToolSchemas::types(std::string_view tool, std::string_view parameter) const {
  const Json* found = find(tool);
  if (found == nullptr) return 0;
  const Json schema = parameters_of(*found);
  const auto properties = schema.find("properties");
  if (properties == schema.end() || !properties->is_object()) return 0;
  const auto property = properties->find(std::string(parameter));
  return property == properties->end() ? 0 : types_of(*property, schema);
}

}  // namespace cairn::text::answer
