// Finding the scale (and minimum) of one sub-block before its codes are chosen. All sums run in index order.
#pragma once

namespace cairn::codecs {

// x ~ scale * code - min with codes 0..top, scale >= 0, min >= 0.
struct AffineFit {
  float scale = 0, min = 0;
};

// Tries 1 + steps step sizes (range / (top + first + 0.1 t)), refines each by weighted least squares, keeps
// the one of least weighted squared (or absolute) error.
struct AffineSearch {
  int top;
  float first;
  int steps;
  bool absolute_error;
};
AffineFit fit_affine(const float* x, const float* weights, int count, const AffineSearch&);

// x ~ scale * code with codes -half..half-1 and the extreme element near -half; scale may be negative.
// Tries step sizes |smax| / (half + 0.1 t), |t| <= 9, each refined by weighted least squares.
float fit_symmetric(const float* x, const float* weights, int count, int half);

// The same model, refined by moving one code at a time to where it serves best, five sweeps.
float fit_symmetric_by_descent(const float* x, const float* weights, int count, int half);

}  // namespace cairn::codecs
