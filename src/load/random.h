// The generator of every random choice of a load: the same seed gives the same load.
#pragma once

#include <random>

namespace cairn::load {

using Random = std::mt19937_64;

}  // namespace cairn::load
