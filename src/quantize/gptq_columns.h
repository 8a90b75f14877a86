// GPTQ's column loop (Frantar et al. 2022, algorithm 1) for one matrix.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/gptq_layout.h"
#include "quantize/grid.h"

namespace cairn::quantize {

struct GptqRules {
  GridRules grid;
  int64_t group = 128;     // columns that share a scale; 0: all
  bool act_order = false;  // columns with the largest inputs first
  // With act_order: groups of columns in the order of rounding, which readers find through g_idx. Else groups
  // are neighbours, and their grids come from the weights as they were.
  bool scattered = false;
  int64_t block = 128;    // columns whose errors reach the rest in one product; 1: at once, the definition
  double damping = 0.01;  // of the mean diagonal, added to it
};

// What the matrices of one input share: the order of the columns and the factor of the damped inverse.
struct GptqFactor {
  std::vector<int32_t> order;              // column that is rounded i-th
  std::vector<bool> dead;                  // columns, by number, whose inputs were always 0
  const SymmetricMatrix* upper = nullptr;  // in that order: moments.products, overwritten
  double damping = 0;                      // that it took
  int64_t dead_columns() const;
};

// Throws Error(invalid_argument) naming `matrix` when an input's mean square is not finite, or when no
// damping up to a hundred times that of the rules makes the matrix positive definite.
GptqFactor gptq_factor(InputMoments& moments, const GptqRules&, const std::string& matrix, ThreadPool&);

// values: [rows, cols], finite; used up. rules.block columns at a time, cut where groups end.
GptqMatrix gptq_round(std::vector<float> values, int64_t rows, int64_t cols, const GptqFactor&,
                      const GptqRules&, ThreadPool&);
// Every weight by itself.
GptqMatrix round_to_nearest(std::span<const float> values, int64_t rows, int64_t cols, const GptqRules&,
                            ThreadPool&);

}  // namespace cairn::quantize
