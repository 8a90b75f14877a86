// Calls the other way round: how a format writes them, as text and as a grammar.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "text/answer/formats.h"

namespace cairn::text::answer {

bool is_written_name(std::string_view name);
// Everything before the arguments.
std::string written_begin(const ToolRow&, std::string_view name);
// The arguments object in the format's notation.
std::string written_arguments(const ToolRow&, const nlohmann::ordered_json& arguments);
// The same as a GBNF grammar, for formats that do not write JSON: the parameters in the schema's order,
// required ones always. Types come from the schema; of objects and arrays only that they are JSON, and a
// string value may not contain the tag that ends it.
std::string arguments_grammar(const ToolRow&, const nlohmann::ordered_json& schema);

}  // namespace cairn::text::answer
