#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_avx512.h"
#include "backends/cpu/matmul_scaled.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = Avx512Lanes;
constexpr MatMulKernel kKernels[] = {float_kernel<F32Weight<S>>(),      float_kernel<F16Weight<S>>(),
                                     float_kernel<Bf16Weight<S>>(),     scaled_kernel<E4M3Weight<S>>(),
                                     scaled_kernel<Int4G32Weight<S>>(), scaled_kernel<Int4G128Weight<S>>()};

}  // namespace

const KernelTable kAvx512FloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
