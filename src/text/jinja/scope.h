// Resolves names to slots by jinja2's scoping: which assignments leave their block, what a macro closes over,
// what a loop body inherits. jinja2 compiles to Python functions; a slot is one of their local variables,
// named by the nesting level and the template's name, and shared by sibling scopes of one level as there.
#pragma once

#include "text/jinja/ast.h"

namespace cairn::text::jinja {

void resolve_names(Tree&);  // throws SyntaxError for what jinja2 refuses to compile

}  // namespace cairn::text::jinja
