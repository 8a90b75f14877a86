// What this processor executes, as ordered levels: a kernel exists for some of them, dispatch takes the best
// one that is present. CAIRN_ISA=scalar|avx2|avx512|vnni|amx lowers the level (tests mask it this way).
#pragma once

#include <string_view>

namespace cairn {

enum class Isa {
  scalar,  // x86-64 baseline, or any other machine
  avx2,    // AVX2, FMA, F16C, BMI2
  avx512,  // AVX-512 F, BW, VL, DQ
  vnni,    // and VNNI, BF16, VBMI (Zen 4 and 5, Cooper Lake, Sapphire Rapids)
  amx,     // and AMX tiles for int8 and bf16, permitted to this process by the kernel
};

Isa detect_isa();          // the machine's, read once
Isa active_isa();          // detect_isa() lowered by CAIRN_ISA or set_active_isa
void set_active_isa(Isa);  // for tests; never raises above what is detected
std::string_view to_string(Isa);

}  // namespace cairn
