#include "backends/cpu/row_kernels.h"

namespace cairn::cpu {

extern const RowKernels kRowKernels_scalar, kRowKernels_avx2, kRowKernels_avx512;

const RowKernels& row_kernels(Isa isa) {
  if (isa >= Isa::avx512) return kRowKernels_avx512;
  if (isa >= Isa::avx2) return kRowKernels_avx2;
  return kRowKernels_scalar;
}

}  // namespace cairn::cpu
