#include "quantize/symmetric.h"

#include <utility>

namespace cairn::quantize {

void SymmetricMatrix::exchange(int64_t i, int64_t j) {
  float *to_i = strip(i / kStrip) + i % kStrip, *to_j = strip(j / kStrip) + j % kStrip;
  for (int64_t k = 0; k < i; ++k) std::swap(to_i[k * kStrip], to_j[k * kStrip]);
  for (int64_t k = i + 1; k < j; ++k) std::swap(at(i, k), to_j[k * kStrip]);
  for (int64_t k = j + 1; k < n_; ++k) std::swap(at(i, k), at(j, k));
  std::swap(at(i, i), at(j, j));
}

}  // namespace cairn::quantize
