// What the tools of a request say about their arguments.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cairn::text::answer {

// The tools of one request, in any form that clients send: {"type": "function", "function": {...}} or the
// function alone (with "parameters" or Anthropic's "input_schema").
class ToolSchemas {
 public:
  explicit ToolSchemas(const nlohmann::ordered_json& tools);

  bool known(std::string_view name) const { return find(name) != nullptr; }
  // Which types the parameter may have (ValueType); 0 when nothing is said.
  unsigned types(std::string_view tool, std::string_view parameter) const;

 private:
  const nlohmann::ordered_json* find(std::string_view name) const;

  nlohmann::ordered_json tools_;
};

// The function of a tool, its name and its parameters' schema ({"type": "object"} when there is none).
const nlohmann::ordered_json& function_of(const nlohmann::ordered_json& tool);
std::string name_of(const nlohmann::ordered_json& tool);  // "" when it has none
nlohmann::ordered_json parameters_of(const nlohmann::ordered_json& tool);

// ValueTypes of a JSON schema; root is where its $ref point into.
unsigned types_of(const nlohmann::ordered_json& schema, const nlohmann::ordered_json& root);

}  // namespace cairn::text::answer
