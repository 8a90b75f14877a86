// Half of a square matrix: symmetric, or upper triangular. It lies in strips of kStrip columns, each with the
// rows from 0 to its last column, so that what blocked solvers touch is an ordinary row-major matrix and the
// whole takes half the memory of a square.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace cairn::quantize {

class SymmetricMatrix {
 public:
  static constexpr int64_t kStrip = 192;

  explicit SymmetricMatrix(int64_t n = 0)
      : n_(n), strips_((n + kStrip - 1) / kStrip), values_(size_t(offset(strips_))) {}

  int64_t size() const { return n_; }
  int64_t strips() const { return strips_; }
  int64_t width(int64_t strip) const { return std::min(kStrip, n_ - strip * kStrip); }

  // Row 0 of columns [strip * kStrip, + width), rows kStrip floats apart. What lies below the diagonal within
  // a strip is there, but counts for nothing.
  float* strip(int64_t strip) { return values_.data() + offset(strip); }
  const float* strip(int64_t strip) const { return values_.data() + offset(strip); }

  // Precondition: row <= column.
  float& at(int64_t row, int64_t column) { return strip(column / kStrip)[row * kStrip + column % kStrip]; }
  float at(int64_t row, int64_t column) const {
    return strip(column / kStrip)[row * kStrip + column % kStrip];
  }
  // Of a symmetric matrix, in either order.
  float symmetric(int64_t i, int64_t j) const { return at(std::min(i, j), std::max(i, j)); }

  void scale(float factor) {
    for (float& value : values_) value *= factor;
  }
  // Rows and columns i and j, i < j, of a symmetric matrix change places.
  void exchange(int64_t i, int64_t j);

 private:
  static int64_t offset(int64_t strip) { return kStrip * kStrip * strip * (strip + 1) / 2; }

  int64_t n_, strips_;
  std::vector<float> values_;
};

}  // namespace cairn::quantize
