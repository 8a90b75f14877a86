// The values of `format`, as patterns of the whole string. Each is the format or a subset of it: what is left
// out stands beside it. A format that is not here is refused.
#pragma once

#include <string_view>

namespace cairn::text::constrain {

// Empty: not supported.
std::string_view format_pattern(std::string_view name);

}  // namespace cairn::text::constrain
