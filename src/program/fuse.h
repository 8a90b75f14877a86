// The two directions between basic and fused instructions. Both give a program with the same results: fuse()
// for fewer passes over memory and fewer barriers, expand() as the definition that tests and new backends
// start from.
#pragma once

#include "program/program.h"

namespace cairn::program {

// MatMul of a gate and an up weight + GatedActivation -> GatedMatMul; Add + RmsNorm of the sum -> AddRmsNorm.
// Only where the intermediate value has no other reader.
Program fuse(const Program&);

// GatedMatMul, AddRmsNorm, Logits, LowRankMlp and LowRankAttention in basic instructions.
Program expand(const Program&);

}  // namespace cairn::program
