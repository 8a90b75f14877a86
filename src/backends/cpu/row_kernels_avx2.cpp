#ifndef __clang__  // whose -O2 vectorizes by itself
#pragma GCC optimize("O3")
#endif
#include "backends/cpu/row_kernels_body.h"

namespace cairn::cpu {
extern const RowKernels kRowKernels_avx2;
const RowKernels kRowKernels_avx2 = kKernels;
}  // namespace cairn::cpu
