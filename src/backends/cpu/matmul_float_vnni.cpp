// bf16 weights times bf16 left side, pair by pair (AVX512-BF16).
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_lanes_avx512.h"
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

void prepare_bf16(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act) {
  const size_t bytes = act_row_bytes(ActForm::bf16, cols);
  const int64_t padded = ActFloat::padded(cols);
  for (int64_t r = rows.begin; r < rows.end; r++) {
    const float* const from = x + r * ldx;
    std::byte* const to = act + size_t(r) * bytes;
    for (int64_t k = 0; k < padded; k += 16) {
      const int64_t left = cols - k;
      const __mmask16 mask = left >= 16 ? __mmask16(0xffff)
                             : left > 0 ? __mmask16((1u << left) - 1)
                                        : __mmask16(0);
      const __m256bh pairs = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + k));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k * 2), __m256i(pairs));
    }
  }
}

constexpr MatMulKernel kKernels[] = {float_kernel<PairWeight>(prepare_bf16)};

}  // namespace

const KernelTable kVnniFloatKernels = {kKernels, std::size(kKernels)};

}  // namespace cairn::cpu
