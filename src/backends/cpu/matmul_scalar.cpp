#define CAIRN_INLINE
#include "backends/cpu/matmul_decoded.h"
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_scalar.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = ScalarLanes;
using codecs::CodecId;
// Any machine: floats as they are, blocks decoded to floats. The integer kernels start at AVX2.
constexpr MatMulKernel kKernels[] = {
    float_kernel<F32Weight<S>>(),
    float_kernel<F16Weight<S>>(),
    float_kernel<Bf16Weight<S>>(),
    decoded_kernel<S, CodecId::q8_0>(),
    decoded_kernel<S, CodecId::q4_0>(),
    decoded_kernel<S, CodecId::q4_1>(),
    decoded_kernel<S, CodecId::q5_0>(),
    decoded_kernel<S, CodecId::q5_1>(),
    decoded_kernel<S, CodecId::iq4_nl>(),
    decoded_kernel<S, CodecId::mxfp4>(),
    decoded_kernel<S, CodecId::q2_k>(),
    decoded_kernel<S, CodecId::q3_k>(),
    decoded_kernel<S, CodecId::q4_k>(),
    decoded_kernel<S, CodecId::q5_k>(),
    decoded_kernel<S, CodecId::q6_k>(),
    decoded_kernel<S, CodecId::iq4_xs>(),
    decoded_kernel<S, CodecId::tq2_0>(),
    decoded_kernel<S, CodecId::f64>(),
    decoded_kernel<S, CodecId::i8>(),
    decoded_kernel<S, CodecId::i16>(),
    decoded_kernel<S, CodecId::i32>(),
    decoded_kernel<S, CodecId::i64>(),
    decoded_kernel<S, CodecId::nvfp4>(),
    decoded_kernel<S, CodecId::tq1_0>(),
    decoded_kernel<S, CodecId::e4m3>(),
    decoded_kernel<S, CodecId::e4m3_g128>(),
    decoded_kernel<S, CodecId::int2_g32>(),
    decoded_kernel<S, CodecId::int2_g128>(),
    decoded_kernel<S, CodecId::int3_g32>(),
    decoded_kernel<S, CodecId::int3_g128>(),
    decoded_kernel<S, CodecId::int4_g32>(),
    decoded_kernel<S, CodecId::int4_g128>(),
    decoded_kernel<S, CodecId::int8_g32>(),
    decoded_kernel<S, CodecId::int8_g128>(),
    decoded_kernel<S, CodecId::bcq1_g128>(),
    decoded_kernel<S, CodecId::bcq2_g128>(),
    decoded_kernel<S, CodecId::bcq3_g128>(),
    decoded_kernel<S, CodecId::bcq4_g128>(),
};

}  // namespace

const KernelTable kScalarKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
