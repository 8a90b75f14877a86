#pragma GCC optimize("O3")
#include "backends/cpu/row_kernels_body.h"

namespace cairn::cpu {
extern const RowKernels kRowKernels_avx512;
const RowKernels kRowKernels_avx512 = kKernels;
}  // namespace cairn::cpu
