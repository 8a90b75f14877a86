#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_avx512.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = Avx512Lanes;
constexpr MatMulKernel kKernels[] = {float_kernel<F32Weight<S>>(), float_kernel<F16Weight<S>>(),
                                     float_kernel<Bf16Weight<S>>()};

}  // namespace

const KernelTable kAvx512FloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
