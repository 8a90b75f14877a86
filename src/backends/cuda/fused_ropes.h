// Which rotations the launch that appends to the cache does on its way.
#pragma once

#include <vector>

#include "program/program.h"

namespace cairn::cuda {

// Per instruction: rotations that a KvWrite takes over, and on those that they are skipped.
struct FusedRope {
  const program::Rope *q = nullptr, *k = nullptr;
  bool skip = false;
};

// Rotations of a layer's queries and keys that its KvWrite can do on the way: both feed nothing else, turn
// alike, and nothing but them stands between them and the KvWrite (whose inputs' memory could have been taken
// by then).
std::vector<FusedRope> find_fused_ropes(const program::Program&);

}  // namespace cairn::cuda
