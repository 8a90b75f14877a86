// Regular expressions as grammars: ECMAScript's notation, without what is not regular (look-around,
// back-references) and without \b. \d, \w are ASCII, \s is ECMAScript's; . is all but line ends.
#pragma once

#include <functional>
#include <string_view>

#include "text/constrain/syntax.h"

namespace cairn::text::constrain {

struct PatternOptions {
  bool ignore_case = false;
  bool dot_all = false;  // . is any character
  // How a set of characters is written in the output; by default as it is.
  std::function<NodeId(Syntax&, CodePoints)> characters = {};
};

// The texts that match as a whole. Errors say "offset 3: ...", in bytes.
NodeId whole_pattern(Syntax&, std::string_view pattern, const PatternOptions& = {});
// The texts in which a match is found: JSON Schema's meaning.
NodeId found_pattern(Syntax&, std::string_view pattern, const PatternOptions& = {});

}  // namespace cairn::text::constrain
