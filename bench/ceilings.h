// What this machine can do at most, measured in the same run as the kernels that are compared with it.
#pragma once

#include <cstddef>

#include "base/cpu_features.h"
#include "base/thread_pool.h"

namespace cairn::bench {

// Bytes per second of reading `bytes` of memory, split over the pool; best of three passes.
double read_bandwidth(ThreadPool&, const std::byte* memory, size_t bytes);

// Operations (a multiply and an add are two) per second of register-resident loops on all threads of the
// pool. Zero when the level has no such instruction.
double peak_f32(ThreadPool&);
double peak_bf16(ThreadPool&, Isa);
double peak_int8(ThreadPool&, Isa);

}  // namespace cairn::bench
