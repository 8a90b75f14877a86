// Layout of text as Python's textwrap and pprint do it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

namespace cairn::text::jinja {

// textwrap.wrap of one line without tab expansion or whitespace replacement.
std::vector<std::string> wrap_line(Runtime&, std::string_view line, int64_t width, bool break_long_words,
                                   bool break_on_hyphens);

// pprint.pformat: dicts sorted by key, lines of 80.
std::string pretty(Runtime&, const Value&);

}  // namespace cairn::text::jinja
