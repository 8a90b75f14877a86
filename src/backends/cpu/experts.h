// Choosing experts, and grouping a step's (token, choice) pairs by expert so that each expert's rows are
// multiplied together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "program/experts.h"

namespace cairn::cpu {

// One row: the top_k largest of softmax(scores) (ties: the lower expert), largest first, and their weights.
void route_row(program::Routing, std::span<const float> scores, std::span<int32_t> chosen,
               std::span<float> weights);

// Pairs sorted by expert, stable in pair number: pairs[begin[e] .. begin[e + 1]) chose expert e.
struct ExpertGroups {
  std::vector<int32_t> pairs, begin;
  void assign(std::span<const int32_t> chosen, int64_t experts);
};

}  // namespace cairn::cpu
