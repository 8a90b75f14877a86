#include "engine/scheduling/step_time.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace cairn::engine {
namespace {

constexpr size_t kPerBin = 4, kBins = 256;
constexpr double kTrustedError = 0.3;  // relative; larger ones count as disturbances
constexpr int kFitEvery = 8;           // steps, while all are of familiar sizes

int power(int64_t n) { return int(std::bit_width(uint64_t(n))); }

// Solves the symmetric system of the terms in `chosen`; the others are 0. False when it is singular.
template <size_t N>
bool solve(const std::array<std::array<double, N>, N>& a, const std::array<double, N>& b, unsigned chosen,
           std::array<double, N>& x) {
  std::array<size_t, N> index{};
  size_t n = 0;
  for (size_t i = 0; i < N; ++i)
    if (chosen >> i & 1) index[n++] = i;
  double m[N][N + 1];
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) m[i][j] = a[index[i]][index[j]];
    m[i][n] = b[index[i]];
  }
  for (size_t k = 0; k < n; ++k) {  // positive definite: no pivoting
    if (!(m[k][k] > 0)) return false;
    for (size_t i = k + 1; i < n; ++i) {
      const double f = m[i][k] / m[k][k];
      for (size_t j = k; j <= n; ++j) m[i][j] -= f * m[k][j];
    }
  }
  x.fill(0);
  for (size_t k = n; k-- > 0;) {
    double value = m[k][n];
    for (size_t j = k + 1; j < n; ++j) value -= m[k][j] * x[index[j]];
    x[index[k]] = value / m[k][k];
  }
  return true;
}

}  // namespace

StepTimeModel::Terms StepTimeModel::terms(const StepShape& s) {
  const int64_t rows = s.decode_rows + s.prompt_tokens;
  return {1,
          double(s.decode_rows),
          double(s.prompt_tokens),
          double(s.context),
          double(s.prompt_pairs),
          rows > 1 ? 1.0 : 0.0,
          double(std::min<int64_t>(rows, 16))};
}

double StepTimeModel::predict(const StepShape& shape) const {
  const Terms x = terms(shape);
  double seconds = 0;
  for (int i = 0; i < kTerms; ++i) seconds += c_[size_t(i)] * x[size_t(i)];
  return speed_ * seconds;
}

double StepTimeModel::upper(const StepShape& shape) const {
  if (shape.prompt_tokens > std::max(kFirstTokens, 2 * largest_prompt_))
    return std::numeric_limits<double>::infinity();
  return predict(shape) * std::exp(2 * spread_);
}

void StepTimeModel::add(const StepShape& shape, double seconds) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  ++steps_;
  largest_prompt_ = std::max(largest_prompt_, shape.prompt_tokens);
  Bin& bin = bins_[{power(shape.decode_rows), power(shape.prompt_tokens), power(shape.context) / 2}];
  bin.last = steps_;
  // Of a size that is new the fit is what is wrong, not the machine's speed.
  const bool familiar = bin.samples.size() == kPerBin;
  if (const double predicted = predict(shape); familiar && predicted > 0) {
    // Bounded, so that one disturbed step moves little; a machine that stays slower is followed in some 20.
    const double error = std::clamp(std::log(seconds / predicted), -kTrustedError, kTrustedError);
    speed_ *= std::exp(error / 8);
    spread_ += (std::abs(error) - spread_) / 32;
  }
  if (speed_ < 0.5 || speed_ > 2) {  // what was kept is brought to the new speed, so that it ages together
    for (auto& [size, kept] : bins_)
      for (auto& sample : kept.samples) sample.seconds *= speed_;
    for (double& c : c_) c *= speed_;
    speed_ = 1;
  }
  bin.samples.push_back({terms(shape), seconds / speed_});
  if (familiar) bin.samples.pop_front();
  if (bins_.size() > kBins)
    bins_.erase(std::min_element(bins_.begin(), bins_.end(),
                                 [](auto& a, auto& b) { return a.second.last < b.second.last; }));
  if (!familiar || steps_ % kFitEvery == 0) fit();
}

// Normal equations of sum w (c.x / t - 1)^2, with terms scaled to a largest value of 1; the least squares
// among the 127 sets of non-negative terms, which is the exact answer and cheaper than searching for it.
void StepTimeModel::fit() {
  Terms scale{};
  for (const auto& [size, bin] : bins_)
    for (const auto& s : bin.samples)
      for (size_t i = 0; i < kTerms; ++i) scale[i] = std::max(scale[i], s.x[i]);
  for (int pass = 0; pass < 3; ++pass) {  // each weighs errors by the fit before
    std::array<Terms, kTerms> a{};
    Terms b{};
    double total = 0;
    for (const auto& [size, bin] : bins_)
      for (const auto& s : bin.samples) {
        double predicted = 0;
        for (size_t i = 0; i < kTerms; ++i) predicted += c_[i] * s.x[i];
        const double error = std::abs(predicted / s.seconds - 1);
        const double weight = predicted > 0 && error > kTrustedError ? kTrustedError / error : 1;
        Terms x{};
        for (size_t i = 0; i < kTerms; ++i) x[i] = scale[i] > 0 ? s.x[i] / (scale[i] * s.seconds) : 0;
        for (size_t i = 0; i < kTerms; ++i) {
          for (size_t j = 0; j < kTerms; ++j) a[i][j] += weight * x[i] * x[j];
          b[i] += weight * x[i];
        }
        total += weight;
      }
    // A little ridge: terms that no step could tell apart share what they explain.
    for (size_t i = 0; i < kTerms; ++i) a[i][i] *= 1 + 1e-6;
    Terms best{};
    double least = std::numeric_limits<double>::infinity();
    for (unsigned chosen = 1; chosen < 1u << kTerms; ++chosen) {
      Terms x{};
      if (!solve(a, b, chosen, x)) continue;
      if (*std::min_element(x.begin(), x.end()) < 0) continue;
      double residual = total;
      for (size_t i = 0; i < kTerms; ++i) {
        residual -= 2 * b[i] * x[i];
        for (size_t j = 0; j < kTerms; ++j) residual += a[i][j] * x[i] * x[j];
      }
      if (residual < least) least = residual, best = x;
    }
    for (size_t i = 0; i < kTerms; ++i) c_[i] = scale[i] > 0 ? best[i] / scale[i] : 0;
  }
}

}  // namespace cairn::engine
