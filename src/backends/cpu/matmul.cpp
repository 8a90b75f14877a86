#include "backends/cpu/matmul.h"

#include "backends/cpu/matmul_act.h"
#include "backends/cpu/matmul_tables.h"

namespace cairn::cpu {
namespace {

// Best first; within one level the order does not matter, a codec has one kernel per level.
const KernelTable* const kTables[] = {
#if defined(__x86_64__)
    &kAmxFloatKernels,    &kAmxBlock32Kernels,   &kAmxSuper256Kernels, &kVnniFloatKernels,
    &kVnniBlock32Kernels, &kVnniSuper256Kernels, &kAvx512FloatKernels, &kAvx2FloatKernels,
    &kAvx2Block32Kernels, &kAvx2Super256Kernels,
#endif
    &kScalarKernels,
};

}  // namespace

size_t act_row_bytes(ActForm form, int64_t cols) {
  switch (form) {
    case ActForm::f32: return ActFloat::row_bytes(cols, 4);
    case ActForm::bf16: return ActFloat::row_bytes(cols, 2);
    case ActForm::q8_block32: return ActBlock32::row_bytes(cols);
    case ActForm::q8_block256: return ActBlock256::row_bytes(cols);
    case ActForm::signed_sums: return ActSignedSums::row_bytes(cols);
  }
  __builtin_unreachable();
}

const MatMulKernel* matmul_kernel(codecs::CodecId id, Isa isa, int64_t cols) {
  const codecs::Codec& codec = codecs::codec(id);
  if (!codec.decode || cols <= 0 || cols % codec.block_elements != 0) return nullptr;
  for (const KernelTable* table : kTables)
    for (size_t i = 0; i < table->count; i++)
      if (table->kernels[i].codec == id && table->kernels[i].isa <= isa) return &table->kernels[i];
  return nullptr;
}

}  // namespace cairn::cpu
