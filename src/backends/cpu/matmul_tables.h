// The kernels that each translation unit contributes. The tables are constants: reading them executes nothing
// that was compiled for another processor.
#pragma once

#include <cstddef>

#include "backends/cpu/matmul.h"

namespace cairn::cpu {

struct KernelTable {
  const MatMulKernel* kernels;
  size_t count;
};

extern const KernelTable kScalarKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2FloatKernels, kAvx2Block32Kernels, kAvx2Super256Kernels;
extern const KernelTable kAvx512FloatKernels;
extern const KernelTable kVnniFloatKernels, kVnniBlock32Kernels, kVnniSuper256Kernels;
extern const KernelTable kAmxFloatKernels, kAmxBlock32Kernels, kAmxSuper256Kernels;
#endif

}  // namespace cairn::cpu
