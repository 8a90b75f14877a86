// One planned block of memory for all values of a program: values whose lifetimes overlap get disjoint
// ranges. Known before anything is allocated.
#pragma once

#include <vector>

#include "program/program.h"

namespace cairn::program {

struct ArenaPlan {
  static constexpr int64_t kNone = -1;
  std::vector<int64_t>
      offsets;              // per value, in bytes, multiples of kAlignment; kNone for tokens without data
  int64_t bytes = 0;        // of the whole arena
  int64_t lower_bound = 0;  // the most bytes alive at one instruction: no plan needs less

  static constexpr int64_t kAlignment = 64;
};

// Greedy by size (largest value first, lowest free offset), the order that Pisarchyk & Lee 2020 found best.
// Inputs live from the start, outputs to the end, what is handed over from its stage's begin or to its end.
ArenaPlan plan_arena(const Program&, const Bounds&);

}  // namespace cairn::program
