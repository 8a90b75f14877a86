// What a request says about the form of its answer, compiled: response_format, grammars, tool calls.
#pragma once

#include <string>

#include "engine/serving/request.h"
#include "serve/api/serving.h"

namespace cairn::serve {

struct ToolConstraint {
  const Json* tools = nullptr;  // null: none
  bool required = false;        // the answer begins with a call
  std::string only;             // the one tool that may be called; "": any
  bool parallel = true;         // more than one call
};

// Fills request.grammar from a chat's or completion's body. format: the member that names the answer's format
// (`response_format`, or `text.format` of responses), or null. in_reasoning: the answer begins inside the
// model's reasoning, which stays free. Throws ApiError(400) naming the member, with the place inside a schema
// or grammar.
void read_constraint(const Json& body, const Json* format, const std::string& format_place,
                     const ToolConstraint&, bool in_reasoning, const Serving&, engine::GenerateRequest&);

}  // namespace cairn::serve
