// What a GPU can do at best, measured now.
#pragma once

#include <vector>

#include "backends/cuda/registry.h"

namespace cairn::cuda {

std::vector<Variant> ceiling_variants(int capability);

struct ReadBandwidth {
  double median_gb_per_s = 0, best_gb_per_s = 0;
  size_t bytes = 0;
  int repetitions = 0;
};
// Reads as much as is free, up to 4 GiB, several times.
ReadBandwidth measure_read_bandwidth(const Device&);

// Microseconds from launching an empty kernel on the idle device to its start; 0 where CUPTI cannot tell.
double measure_launch_to_start(const Device&);

}  // namespace cairn::cuda
