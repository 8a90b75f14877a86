// In which type each value of a program lies in GPU memory.
#pragma once

#include <vector>

#include "backends/cuda/row_kernels.h"
#include "program/program.h"

namespace cairn::cuda {

// Values that matrix products and attention read are bf16, as the tensor cores want them; what sums up over
// the layers (the residual stream and everything that is added to it), scores and expert weights stay f32.
// exact: all f32, for tests.
std::vector<Element> element_types(const program::Program&, bool exact);

}  // namespace cairn::cuda
