#include "backends/cpu/matmul_block32.h"
#include "backends/cpu/matmul_decoded.h"
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_scalar.h"
#include "backends/cpu/matmul_super256.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

using S = ScalarLanes;
using codecs::CodecId;
constexpr MatMulKernel kKernels[] = {
    float_kernel<F32Weight<S>>(),        float_kernel<F16Weight<S>>(),
    float_kernel<Bf16Weight<S>>(),       block32_kernel<Q8_0<S>>(),
    block32_kernel<Q4_0<S>>(),           block32_kernel<Q4_1<S>>(),
    block32_kernel<Q5_0<S>>(),           block32_kernel<Q5_1<S>>(),
    block32_kernel<Iq4Nl<S>>(),          block32_kernel<Mxfp4<S>>(),
    super256_kernel<Q2_K<S>>(),          super256_kernel<Q3_K<S>>(),
    super256_kernel<Q4_K<S>>(),          super256_kernel<Q5_K<S>>(),
    super256_kernel<Q6_K<S>>(),          super256_kernel<Iq4Xs<S>>(),
    super256_kernel<Tq2_0<S>>(),         decoded_kernel<S, CodecId::f64>(),
    decoded_kernel<S, CodecId::i8>(),    decoded_kernel<S, CodecId::i16>(),
    decoded_kernel<S, CodecId::i32>(),   decoded_kernel<S, CodecId::i64>(),
    decoded_kernel<S, CodecId::nvfp4>(), decoded_kernel<S, CodecId::tq1_0>(),
};

}  // namespace

const KernelTable kScalarKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
