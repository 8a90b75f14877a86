#include "backends/cpu/matmul_decoded.h"
#include "backends/cpu/matmul_lanes_avx2.h"
#include "backends/cpu/matmul_lookup.h"
#include "backends/cpu/matmul_scaled.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = Avx2Lanes;
using codecs::CodecId;
constexpr MatMulKernel kKernels[] = {
    float_kernel<F32Weight<S>>(),
    float_kernel<F16Weight<S>>(),
    float_kernel<Bf16Weight<S>>(),
    decoded_kernel<S, CodecId::nvfp4>(),
    decoded_kernel<S, CodecId::tq1_0>(),
    scaled_kernel<E4M3Weight<S>>(),
    int_kernel<S, CodecId::int2_g32, codecs::BlockInt2G32>(),
    int_kernel<S, CodecId::int2_g128, codecs::BlockInt2G128>(),
    int_kernel<S, CodecId::int3_g32, codecs::BlockInt3G32>(),
    int_kernel<S, CodecId::int3_g128, codecs::BlockInt3G128>(),
    int_kernel<S, CodecId::int4_g32, codecs::BlockInt4G32>(),
    int_kernel<S, CodecId::int4_g128, codecs::BlockInt4G128>(),
    int_kernel<S, CodecId::int8_g32, codecs::BlockInt8G32>(),
    int_kernel<S, CodecId::int8_g128, codecs::BlockInt8G128>(),
    lookup_kernel<SignsWeight<S, CodecId::bcq1_g128, 1>>(),
    lookup_kernel<SignsWeight<S, CodecId::bcq2_g128, 2>>(),
    lookup_kernel<SignsWeight<S, CodecId::bcq3_g128, 3>>(),
    lookup_kernel<SignsWeight<S, CodecId::bcq4_g128, 4>>(),
};

}  // namespace

const KernelTable kAvx2FloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
