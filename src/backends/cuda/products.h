// Matrix products of a step whose first rows extend answers and whose others belong to prompts: each class
// goes to its kernels.
#pragma once

#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/matmul_many.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

// Calls that share x, m and add; rows [0, decode_rows) are of class decode, the rest of class prompt.
void multiply(KernelCache&, Stream&, std::span<const MatMulCall>, int64_t decode_rows, ManyScratch&);

// Modules that multiply() may need for calls like these; prompt: rows of prompts too.
std::vector<Variant> product_variants(const DeviceFacts&, std::span<const MatMulCall>, bool decode,
                                      bool prompt);

}  // namespace cairn::cuda
