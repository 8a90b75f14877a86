// What a pack of compiled kernels holds: so much that a first start of usual models compiles nothing.
#pragma once

#include <vector>

#include "backends/cuda/registry.h"

namespace cairn::cuda {

// Every stock variant, and those that models of usual shapes ask for on the chips of this capability (80, 86,
// 89, 90), each once. A model of another shape compiles what it lacks.
std::vector<Variant> pack_variants(int capability);

}  // namespace cairn::cuda
