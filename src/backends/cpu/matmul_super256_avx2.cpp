#include "backends/cpu/matmul_lanes_avx2.h"
#include "backends/cpu/matmul_super256.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = Avx2Lanes;
constexpr MatMulKernel kKernels[] = {super256_kernel<Q2_K<S>>(), super256_kernel<Q3_K<S>>(),
                                     super256_kernel<Q4_K<S>>(), super256_kernel<Q5_K<S>>(),
                                     super256_kernel<Q6_K<S>>(), super256_kernel<Iq4Xs<S>>(),
                                     super256_kernel<Tq2_0<S>>()};

}  // namespace

const KernelTable kAvx2Super256Kernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
