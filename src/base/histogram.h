// Counts of values in fixed buckets, as Prometheus wants them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace cairn {

class Histogram {
 public:
  // Upper bounds in seconds: 0.1 ms to 2 minutes, about three to a decade.
  static constexpr std::array<double, 19> kBounds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                                     0.025,  0.05,    0.1,    0.25,  0.5,    1,     2.5,
                                                     5,      10,      25,     60,    120};
  void add(double value) {
    ++counts_[size_t(std::lower_bound(kBounds.begin(), kBounds.end(), value) - kBounds.begin())];
    ++count_;
    sum_ += value;
  }
  // counts()[i]: values in (kBounds[i - 1], kBounds[i]]; the last: above all bounds.
  std::span<const uint64_t> counts() const { return counts_; }
  uint64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::array<uint64_t, kBounds.size() + 1> counts_{};
  uint64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace cairn
