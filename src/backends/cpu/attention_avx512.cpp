#include "backends/cpu/attention_unrolled.h"  // before all others

#include "backends/cpu/attention_avx512_lanes.h"
#include "backends/cpu/attention_f32_tiles.h"

namespace cairn::cpu {

const TileKernels kAttentionAvx512 = kF32Kernels<Avx512>;

}  // namespace cairn::cpu
