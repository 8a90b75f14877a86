#include "load/samples.h"

#include <algorithm>

namespace cairn::load {

const std::vector<float>& Samples::sorted() const {
  if (!sorted_) std::sort(values_.begin(), values_.end());
  sorted_ = true;
  return values_;
}

double Samples::quantile(double share) const {
  const auto& values = sorted();
  if (values.empty()) return 0;
  const double place = std::clamp(share, 0.0, 1.0) * double(values.size() - 1);
  const auto below = size_t(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  const double part = place - double(below);
  return double(values[below]) * (1 - part) + double(values[above]) * part;
}

}  // namespace cairn::load
