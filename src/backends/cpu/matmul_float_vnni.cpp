// bf16 weights times bf16 left side, pair by pair (AVX512-BF16).
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_avx512.h"
#include "backends/cpu/matmul_prepare_bf16.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

struct PairWeight {
  using Lanes = VnniLanes;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::bf16;
  static constexpr ActForm kAct = ActForm::bf16;
  static constexpr int kStep = 2, kBytes = 64, kActBytes = 4, kPiece = 512, kFileElement = 2, kAlign = 32;
  static CAIRN_INLINE inline __m512 add(__m512 acc, __m512i w, const std::byte* x) {
    return _mm512_dpbf16_ps(acc, __m512bh(w), __m512bh(VnniLanes::bcast_load(x)));
  }
  static CAIRN_INLINE inline __m512i load(const std::byte* w) { return _mm512_loadu_si512(w); }
};

constexpr MatMulKernel kKernels[] = {float_kernel<PairWeight>(prepare_bf16)};

}  // namespace

const KernelTable kVnniFloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
