// Low rank: W [out, in] becomes U V of a rank that a budget of numbers decides. Among all matrices W' of a
// rank, U V minimises the mean of |W x - W' x|^2 over the inputs x that calibration saw (SVD-LLM's whitening,
// arXiv 2403.07378), or |W - W'| without calibration.
//
// With C = mean(x x^T) = L L^T (Cholesky) that is the truncated SVD of W L. Its left vectors U_k are
// orthonormal, and V = U_k^T W, so nothing is divided by L and rows that calibration never excited stay
// projections of W's.
#pragma once

#include <span>
#include <vector>

#include "quantize/method.h"

namespace cairn::quantize {

extern const Method kLowRank;

struct Factors {
  int64_t rank = 0;
  std::vector<float> u, v;  // [rows, rank], [rank, cols]
};

// The singular values of W L and one side's vectors. Kept as f32: min(rows, cols)^2 numbers.
class Decomposition {
 public:
  // values [rows, cols]; moments C [cols, cols], or empty: the identity. Both finite. A C that is not
  // positive definite (fewer rows seen than columns) has its diagonal raised until it is; one of zeros counts
  // as none.
  Decomposition(std::span<const float> values, int64_t rows, int64_t cols, std::span<const float> moments);

  // Of each component, largest first: the mean of |W x|^2 that it carries.
  std::span<const double> energies() const { return energies_; }
  // What was added to C's diagonal, as a share of its mean.
  double shift() const { return shift_; }
  // The same matrix and moments again. rank: at most min(rows, cols); less where the rest carries nothing.
  Factors factors(std::span<const float> values, std::span<const float> moments, int64_t rank) const;

 private:
  int64_t rows_, cols_;
  double shift_ = 0;
  std::vector<double> energies_;
  std::vector<float> vectors_;  // [min, min], column by column: of U where rows <= cols, else of V
};

// A matrix before its rank is known.
struct Spectrum {
  int64_t rows = 0, cols = 0;
  std::span<const double> energies;
};

// Ranks within `keep` (0 to 1) times the numbers of all matrices, greedily: the next few components of the
// matrix where they carry the largest share of its energy per number stored. 0: whole, where factors would
// be no smaller. Throws Error(invalid_argument) when the budget does not give every matrix a first step.
std::vector<int64_t> choose_ranks(std::span<const Spectrum>, double keep);

}  // namespace cairn::quantize
