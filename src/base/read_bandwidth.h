// How fast this machine's memory is read, measured now.
#pragma once

#include <cstddef>

#include "base/thread_pool.h"

namespace cairn {

struct Bandwidth {
  double median_gb_per_s = 0, best_gb_per_s = 0;  // 1e9 bytes per second
  size_t bytes = 0;                               // read per repetition
  int threads = 0, repetitions = 0;
};

// Reads `bytes` of memory once per repetition with every thread of the pool, each its own contiguous part,
// with the widest loads that the machine has. The ceiling of everything that is bound by memory; bytes should
// be several times the last cache. Throws Error(out_of_memory) when they cannot be had.
Bandwidth measure_read_bandwidth(ThreadPool& pool, size_t bytes, int repetitions = 9);

}  // namespace cairn
