// A program cut by the lanes of its instructions (KTransformers, PowerInfer and llama.cpp put layers or
// experts on different processors; pipelines put them on different machines): each lane's instructions are a
// program of its own for one executor, with its own weights and cache slots. The parts take turns; between
// turns rows of values are handed over.
#pragma once

#include <vector>

#include "program/program.h"

namespace cairn::program {

struct Part {
  Lane lane = 0;
  // Values, weights and rope tables keep the numbers that they have in the whole; weights that no instruction
  // of the part reads have no role in it. Cache slots are numbered anew.
  Program program;
  std::vector<int32_t> instructions;  // the number of each in the whole
  std::vector<int32_t> slots;         // likewise
};

// One stage of one part. Turns run in order.
struct Turn {
  int32_t part = 0, stage = 0;
};

struct Parts {
  std::vector<Part> parts;  // by lane; lanes without instructions have none
  std::vector<Turn> turns;
};

// A value is handed over once, directly after the turn that computed it. Precondition: a whole program, fused
// or not (lanes are set before fuse(), which does not fuse across them). Throws Error(invalid_argument) when
// a cache slot is written and read on different lanes.
Parts cut_by_lane(const Program&);

}  // namespace cairn::program
