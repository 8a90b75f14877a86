#pragma once

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace cairn::text::jinja {

// Deeper trees are refused: parsing, resolving and evaluation recurse over them. CPython's own limit is about
// as deep.
inline constexpr int kMaxHeight = 300;

Tree parse(std::string_view source);  // throws SyntaxError

}  // namespace cairn::text::jinja
