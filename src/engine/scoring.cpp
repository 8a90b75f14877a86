#include "engine/scoring.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace cairn::engine {
namespace {

// log of the sum of exp(scores)
double log_sum(std::span<const float> scores) {
  const float largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const float s : scores) sum += std::exp(double(s) - largest);
  return std::log(sum) + largest;
}

}  // namespace

void RunningMean::add(double value) {
  ++count_;
  const double before = value - mean_;
  mean_ += before / double(count_);
  squares_ += before * (value - mean_);
}

double RunningMean::standard_error() const {
  return count_ < 2 ? 0 : std::sqrt(squares_ / double(count_ - 1) / double(count_));
}

std::vector<std::vector<int32_t>> text_windows(std::span<const int32_t> tokens, int64_t window,
                                               std::optional<int32_t> first) {
  assert(window >= 2);
  const auto body = size_t(window - (first ? 1 : 0));
  std::vector<std::vector<int32_t>> windows;
  for (size_t begin = 0; begin < tokens.size(); begin += body) {
    const auto part = tokens.subspan(begin, std::min(body, tokens.size() - begin));
    std::vector<int32_t> rows(part.size() + (first ? 1 : 0), first.value_or(0));
    std::copy(part.begin(), part.end(), rows.end() - int64_t(part.size()));
    if (rows.size() >= 2) windows.push_back(std::move(rows));
  }
  return windows;
}

double surprise(std::span<const float> scores, int32_t token) {
  return log_sum(scores) - scores[size_t(token)];
}

RowDifference compare_rows(std::span<const float> first, std::span<const float> second, int32_t token) {
  assert(first.size() == second.size());
  const double a = log_sum(first), b = log_sum(second);
  RowDifference d;
  d.surprise[0] = a - first[size_t(token)];
  d.surprise[1] = b - second[size_t(token)];
  for (size_t i = 0; i < first.size(); ++i) {
    const double log_p = first[i] - a;
    if (log_p > -745)  // below, p is 0 in double; a score of -inf would give 0 * inf
      d.divergence += std::exp(log_p) * (log_p - (second[i] - b));
  }
  d.divergence = std::max(0.0, d.divergence);  // rounding
  d.same_choice = std::max_element(first.begin(), first.end()) - first.begin() ==
                  std::max_element(second.begin(), second.end()) - second.begin();
  return d;
}

}  // namespace cairn::engine
