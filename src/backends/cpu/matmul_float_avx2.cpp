#include "backends/cpu/matmul_decoded.h"
#include "backends/cpu/matmul_lanes_avx2.h"
#include "backends/cpu/matmul_scaled.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = Avx2Lanes;
constexpr MatMulKernel kKernels[] = {float_kernel<F32Weight<S>>(),
                                     float_kernel<F16Weight<S>>(),
                                     float_kernel<Bf16Weight<S>>(),
                                     decoded_kernel<S, codecs::CodecId::nvfp4>(),
                                     decoded_kernel<S, codecs::CodecId::tq1_0>(),
                                     scaled_kernel<E4M3Weight<S>>(),
                                     scaled_kernel<Int4G32Weight<S>>(),
                                     scaled_kernel<Int4G128Weight<S>>()};

}  // namespace

const KernelTable kAvx2FloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
