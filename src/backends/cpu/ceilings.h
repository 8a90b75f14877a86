// What this processor can multiply at most, measured in the same run as the kernels that are compared with
// it.
#pragma once

#include "base/cpu_features.h"
#include "base/thread_pool.h"

namespace cairn::cpu {

// Operations (a multiply and an add are two) per second of register-resident loops on all threads of the
// pool. Zero when the level has no such instruction.
double peak_f32(ThreadPool&);
double peak_bf16(ThreadPool&, Isa);
double peak_int8(ThreadPool&, Isa);

}  // namespace cairn::cpu
