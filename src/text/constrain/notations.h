// The notations that a Syntax is made from. Each adds its rules and returns the one to start at; throws Error
// as GrammarCompiler says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

#include "text/constrain/grammar.h"
#include "text/constrain/syntax.h"

namespace cairn::text::constrain {

inline constexpr size_t kMostSourceBytes = 1u << 20;
inline constexpr int kDeepest = 200;  // nested groups, values or schemas

RuleId add_json_schema(Syntax&, const nlohmann::ordered_json& schema);
RuleId add_json_object(Syntax&);
RuleId add_regex(Syntax&, std::string_view pattern);
RuleId add_gbnf(Syntax&, std::string_view grammar);
RuleId add_lark(Syntax&, std::string_view grammar);
RuleId add_source(Syntax&, const GrammarSource&);
RuleId add_tagged(Syntax&, const Tokenizer&, const std::vector<GrammarCompiler::Tagged>&,
                  bool must_start_with_one, bool may_repeat);

}  // namespace cairn::text::constrain
