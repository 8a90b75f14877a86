// Measured values and their percentiles.
#pragma once

#include <cstddef>
#include <vector>

namespace cairn::load {

// Every value is kept (4 bytes each), so percentiles are exact. Not thread-safe.
class Samples {
 public:
  void add(double value) {
    values_.push_back(float(value));
    sum_ += value;
    sorted_ = false;
  }
  void add(const Samples& other) {
    values_.insert(values_.end(), other.values_.begin(), other.values_.end());
    sum_ += other.sum_;
    sorted_ = false;
  }

  size_t count() const { return values_.size(); }
  double mean() const { return values_.empty() ? 0 : sum_ / double(values_.size()); }
  // Between neighbours linearly, as numpy does: of 1, 2, 3 and 4 the half is 2.5. 0 when there are no values.
  double quantile(double share) const;
  double max() const { return quantile(1); }
  const std::vector<float>& sorted() const;

 private:
  mutable std::vector<float> values_;
  mutable bool sorted_ = true;
  double sum_ = 0;
};

}  // namespace cairn::load
