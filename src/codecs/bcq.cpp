#include "codecs/bcq.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

// The 2^q sums of +-alpha, ascending; of[s]: bit i is the sign of plane i.
struct Sums {
  Sums(const double* alpha, int q) : count(1 << q) {
    for (int s = 0; s < count; ++s) {
      of[s] = uint8_t(s);
      value[s] = sum(alpha, q, s);
    }
    std::sort(of, of + count,
              [&](uint8_t a, uint8_t b) { return value[a] != value[b] ? value[a] < value[b] : a < b; });
    double sorted[256];
    for (int s = 0; s < count; ++s) sorted[s] = value[of[s]];
    std::copy_n(sorted, count, value);
  }
  static double sum(const double* alpha, int q, int signs) {
    double total = 0;
    for (int i = 0; i < q; ++i) total += signs >> i & 1 ? alpha[i] : -alpha[i];
    return total;
  }
  // Weights above it are nearer to sum s + 1 than to sum s.
  double middle(int s) const { return (value[s] + value[s + 1]) / 2; }

  int count;
  double value[256];
  uint8_t of[256];
};

// Sorted weights with running sums, so that the weights nearest to a sum are a range and a round costs as
// much for 16 weights as for 16,000.
class Group {
 public:
  Group(const float* values, int count, const float* importance, int q) : q_(q) {
    std::vector<int> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return values[a] < values[b]; });
    double total = 0;
    for (int i = 0; importance && i < count; ++i) total += double{importance[i]};
    weight_.push_back(0), first_.push_back(0), second_.push_back(0);
    for (const int i : order) {
      // Importance that is zero everywhere says nothing.
      const double d = importance && total > 0 ? double{importance[i]} : 1, w = double{values[i]};
      sorted_.push_back(w);
      weight_.push_back(weight_.back() + d);
      first_.push_back(first_.back() + d * w);
      second_.push_back(second_.back() + d * w * w);
    }
  }

  // The statistics of the weights assigned to each sum: sums of importance, and of importance * w.
  struct Bins {
    double weight[256] = {}, first[256] = {};
  };
  Bins nearest(const Sums& sums) const {
    Bins bins;
    size_t from = 0;
    for (int s = 0; s < sums.count; ++s) {
      const size_t to =
          s + 1 == sums.count
              ? sorted_.size()
              : size_t(std::upper_bound(sorted_.begin() + long(from), sorted_.end(), sums.middle(s)) -
                       sorted_.begin());
      bins.weight[sums.of[s]] = weight_[to] - weight_[from];
      bins.first[sums.of[s]] = first_[to] - first_[from];
      from = to;
    }
    return bins;
  }
  double error(const double* alpha, const Bins& bins) const {
    double sum = second_.back();
    for (int s = 0; s < 1 << q_; ++s) {
      const double w_hat = Sums::sum(alpha, q_, s);
      sum += w_hat * (w_hat * bins.weight[s] - 2 * bins.first[s]);
    }
    return std::max(sum, 0.0);
  }

  // Least squares for alpha with the signs fixed, by conjugate gradients from alpha: two planes may be equal,
  // and a step never raises the error.
  void refit(const Bins& bins, double* alpha) const {
    double matrix[8][8] = {}, right[8] = {};
    for (int s = 0; s < 1 << q_; ++s)
      for (int i = 0; i < q_; ++i) {
        const double sign = s >> i & 1 ? 1 : -1;
        right[i] += sign * bins.first[s];
        for (int j = 0; j < q_; ++j) matrix[i][j] += sign * (s >> j & 1 ? 1 : -1) * bins.weight[s];
      }
    const auto times = [&](const double* x, double* y) {
      for (int i = 0; i < q_; ++i) {
        y[i] = 0;
        for (int j = 0; j < q_; ++j) y[i] += matrix[i][j] * x[j];
      }
    };
    const auto dot = [&](const double* x, const double* y) {
      double sum = 0;
      for (int i = 0; i < q_; ++i) sum += x[i] * y[i];
      return sum;
    };
    double residual[8], direction[8], image[8];
    times(alpha, residual);
    for (int i = 0; i < q_; ++i) direction[i] = residual[i] = right[i] - residual[i];
    double size = dot(residual, residual);
    const double small = 1e-28 * (1e-300 + dot(right, right));
    for (int step = 0; step < q_ && size > small; ++step) {
      times(direction, image);
      const double curvature = dot(direction, image);
      if (!(curvature > 0)) break;
      const double length = size / curvature;
      for (int i = 0; i < q_; ++i) alpha[i] += length * direction[i], residual[i] -= length * image[i];
      const double next = dot(residual, residual);
      for (int i = 0; i < q_; ++i) direction[i] = residual[i] + next / size * direction[i];
      size = next;
    }
    for (int i = 0; i < q_; ++i) {  // inserted, descending
      const double size_of = std::abs(alpha[i]);
      int at = i;
      for (; at > 0 && alpha[at - 1] < size_of; --at) alpha[at] = alpha[at - 1];
      alpha[at] = size_of;
    }
  }

 private:
  int q_;
  std::vector<double> sorted_, weight_, first_, second_;
};

// Rounds of fitting scales to signs and signs to scales, until nothing moves. Returns errors with the start's
// (if it has none yet) and every round's error behind.
std::vector<double> improve(const Group& group, double* alpha, int q, int rounds,
                            std::vector<double> errors) {
  auto bins = group.nearest(Sums(alpha, q));
  if (errors.empty()) errors.push_back(group.error(alpha, bins));
  for (int round = 0; round < rounds; ++round) {
    double next[8];
    std::copy_n(alpha, 8, next);
    group.refit(bins, next);
    bins = group.nearest(Sums(next, q));
    errors.push_back(group.error(next, bins));
    const bool settled = std::equal(next, next + q, alpha);
    std::copy_n(next, 8, alpha);
    if (settled) break;
  }
  return errors;
}

template <int q>
void decode_block(const BlockBcq<q>& block, float* values) {
  float alpha[q];
  for (int i = 0; i < q; ++i) alpha[i] = f16_to_float(block.alpha[i]);
  for (int e = 0; e < kBcqGroup; ++e) {
    float sum = 0;
    for (int i = 0; i < q; ++i) sum += block.planes[i][e / 8] >> (e % 8) & 1 ? alpha[i] : -alpha[i];
    values[e] = sum + block.bias;
  }
}

template <int q>
void encode_block(const float* values, const float* importance, BlockBcq<q>& block) {
  const BcqFit fit = bcq_fit(values, kBcqGroup, importance, q);
  float alpha[q];
  for (int i = 0; i < q; ++i) {
    block.alpha[i] = f16_scale(fit.alpha[i], BlockBcq<q>::kName);
    alpha[i] = f16_to_float(block.alpha[i]);
  }
  uint8_t codes[kBcqGroup];
  bcq_assign(values, kBcqGroup, alpha, 0, q, codes);
  for (int e = 0; e < kBcqGroup; ++e)
    for (int i = 0; i < q; ++i)
      block.planes[i][e / 8] = uint8_t(block.planes[i][e / 8] | (codes[e] >> i & 1) << (e % 8));
}

}  // namespace

BcqFit bcq_fit(const float* values, int count, const float* importance, int q, int rounds) {
  assert(q >= 1 && q <= 8);
  BcqFit fit;
  double alpha[8] = {};
  double total = 0;
  for (int e = 0; importance && e < count; ++e) total += double{importance[e]};
  const auto weight = [&](int e) { return importance && total > 0 ? double{importance[e]} : 1.0; };
  std::vector<double> rest(values, values + count);
  double error = 0;
  for (int i = 0; i < q; ++i) {
    double sum = 0, weights = 0;
    for (int e = 0; e < count; ++e) sum += weight(e) * std::abs(rest[size_t(e)]), weights += weight(e);
    alpha[i] = sum / weights;
    for (double& r : rest) r -= r >= 0 ? alpha[i] : -alpha[i];
  }
  for (int e = 0; e < count; ++e) error += weight(e) * rest[size_t(e)] * rest[size_t(e)];
  fit.errors.push_back(error);
  if (rounds > 0) {
    const Group group(values, count, importance, q);
    fit.errors = improve(group, alpha, q, rounds, fit.errors);
    // Greedy scales lead past better ones from three planes on; even steps over the range are another start.
    double even[8] = {}, largest = 0;
    for (int e = 0; e < count; ++e) largest = std::max(largest, double{std::abs(values[e])});
    for (int i = 0; i < q; ++i) even[i] = largest * double(1 << (q - 1 - i)) / double((1 << q) - 1);
    auto errors = improve(group, even, q, rounds, {});
    if (errors.back() < fit.errors.back()) {
      fit.errors = std::move(errors);
      std::copy_n(even, q, alpha);
    }
  }
  for (int i = 0; i < q; ++i) fit.alpha[i] = float(alpha[i]);
  return fit;
}

void bcq_assign(const float* values, int count, const float* alpha, float bias, int q, uint8_t* codes) {
  double exact[8];
  std::copy_n(alpha, q, exact);
  const Sums sums(exact, q);
  double middle[255];
  for (int s = 0; s + 1 < sums.count; ++s) middle[s] = sums.middle(s);
  for (int e = 0; e < count; ++e) {
    const double w = double{values[e]} - double{bias};
    int above = 0;
    for (int s = 0; s + 1 < sums.count; ++s) above += w > middle[s];
    codes[e] = sums.of[above];
  }
}

void bcq_assign_greedy(const float* values, int count, const float* alpha, int q, uint8_t* codes) {
  for (int e = 0; e < count; ++e) {
    double rest = double{values[e]};
    codes[e] = 0;
    for (int i = 0; i < q; ++i) {
      const bool plus = rest >= 0;
      codes[e] = uint8_t(codes[e] | int(plus) << i);
      rest -= plus ? double{alpha[i]} : -double{alpha[i]};
    }
  }
}

BcqScales bcq_of_uniform(int bits, float scale, int zero) {
  assert(bits >= 1 && bits <= 8);
  BcqScales scales;
  for (int i = 0; i < bits; ++i) scales.alpha[i] = std::ldexp(scale, i - 1);
  scales.bias = scale * (0.5f * float((1 << bits) - 1) - float(zero));
  return scales;
}

template <int q>
void decode_bcq(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockBcq<q>, decode_block<q>>(blocks, values, count);
}
template <int q>
void encode_bcq(const float* values, std::byte* blocks, int64_t count, const float* importance) {
  encode_blocks<BlockBcq<q>, encode_block<q>>(values, blocks, count, importance);
}
template void decode_bcq<1>(const std::byte*, float*, int64_t);
template void decode_bcq<2>(const std::byte*, float*, int64_t);
template void decode_bcq<3>(const std::byte*, float*, int64_t);
template void decode_bcq<4>(const std::byte*, float*, int64_t);
template void encode_bcq<1>(const float*, std::byte*, int64_t, const float*);
template void encode_bcq<2>(const float*, std::byte*, int64_t, const float*);
template void encode_bcq<3>(const float*, std::byte*, int64_t, const float*);
template void encode_bcq<4>(const float*, std::byte*, int64_t, const float*);

}  // namespace cairn::codecs
