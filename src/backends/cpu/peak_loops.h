// Register-resident loops, one per instruction; each returns the operations that it did.
#pragma once

#include <cstdint>

namespace cairn::cpu {

double loop_f32_avx512(int64_t rounds);
double loop_f32_avx2(int64_t rounds);
double loop_bf16_vnni(int64_t rounds);
double loop_int8_vnni(int64_t rounds);
double loop_bf16_amx(int64_t rounds);
double loop_int8_amx(int64_t rounds);

}  // namespace cairn::cpu
