#include "backends/cpu/matmul_block32.h"
#include "backends/cpu/matmul_lanes_avx2.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = Avx2Lanes;
constexpr MatMulKernel kKernels[] = {block32_kernel<Q8_0<S>>(), block32_kernel<Q4_0<S>>(),
                                     block32_kernel<Q4_1<S>>(), block32_kernel<Q5_0<S>>(),
                                     block32_kernel<Q5_1<S>>(), block32_kernel<Iq4Nl<S>>(),
                                     block32_kernel<Mxfp4<S>>()};

}  // namespace

const KernelTable kAvx2Block32Kernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
