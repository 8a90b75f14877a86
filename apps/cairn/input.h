// Text that comes in on stdin.
#pragma once

#include <cstddef>
#include <string>

namespace cairn::app {

// All of stdin, unchanged. Throws Error(invalid_argument) past `limit` bytes, Error(io) when reading fails.
std::string read_in(size_t limit = size_t{1} << 30);

}  // namespace cairn::app
