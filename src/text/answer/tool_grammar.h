// Tool calls that cannot be malformed: the calls of a request's tools as a grammar.
#pragma once

#include <nlohmann/json.hpp>

#include "text/answer/answer_format.h"
#include "text/constrain/grammar.h"

namespace cairn::text {

struct ToolGrammarOptions {
  bool must_call =
      false;  // no text before a call: tool_choice "required" or one named tool (give only that one)
  bool parallel = true;  // further calls may follow
};

// Free text in which every call, once begun with a known tool's name, has arguments that its schema allows.
// Null when the format writes no calls. A schema that the compiler does not support is an error of the tool
// with "strict": true, "tools[1].function.parameters: ..."; another tool then gets any JSON object. Not for a
// prompt that has opened the reasoning together with must_call: there would be none.
GrammarPtr tool_grammar(GrammarCompiler&, const AnswerFormat&, const nlohmann::ordered_json& tools,
                        const ToolGrammarOptions& = {});

}  // namespace cairn::text
