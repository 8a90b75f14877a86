#include "quantize/gptq_columns.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"
#include "quantize/dense.h"
#include "quantize/inverse_factor.h"

namespace cairn::quantize {
namespace {

constexpr int kRetries = 2;  // each with ten times the damping

int64_t group_of(const GptqRules& rules, int64_t cols) { return rules.group == 0 ? cols : rules.group; }

GptqMatrix empty(int64_t rows, int64_t cols, const GptqRules& rules) {
  const int64_t group = group_of(rules, cols);
  GptqMatrix m{rules.grid.bits, rows, cols, ceil_div(cols, group), {}, {}, {}};
  m.codes.resize(size_t(rows * cols));
  m.grids.resize(size_t(m.groups * rows));
  for (int64_t col = 0; col < cols; ++col) m.column_groups.push_back(int32_t(col / group));
  return m;
}

// m[i, j] = m[order[i], order[j]], in place.
void reorder(SymmetricMatrix& m, std::span<const int32_t> order) {
  std::vector<int32_t> at(order.size()), here(order.size());  // where a column lies now; which lies there
  std::iota(at.begin(), at.end(), 0);
  std::iota(here.begin(), here.end(), 0);
  for (size_t i = 0; i < order.size(); ++i) {
    const auto from = size_t(at[size_t(order[i])]);  // not before i: those are in place
    if (from == i) continue;
    m.exchange(int64_t(i), int64_t(from));
    std::swap(here[i], here[from]);
    at[size_t(here[i])] = int32_t(i), at[size_t(here[from])] = int32_t(from);
  }
}

class Columns {
 public:
  Columns(std::vector<float> values, int64_t rows, int64_t cols, const GptqFactor& factor,
          const GptqRules& rules, ThreadPool& pool)
      : rows_(rows),
        cols_(cols),
        group_(group_of(rules, cols)),
        factor_(factor),
        rules_(rules),
        fixed_(rules.act_order && !rules.scattered),
        pool_(pool),
        m_(empty(rows, cols, rules)) {
    take(std::move(values));
  }

  GptqMatrix round() {
    for (int64_t begin = 0; begin < cols_;) {
      int64_t end = std::min(begin + rules_.block, cols_);
      // A group's grid is fitted to weights that all earlier columns have corrected.
      if (!fixed_) end = std::min(end, (begin / group_ + 1) * group_);
      if (!fixed_ && begin % group_ == 0) fit(begin);
      round_block(begin, end);
      begin = end;
    }
    if (rules_.act_order && rules_.scattered)
      for (int64_t i = 0; i < cols_; ++i)
        m_.column_groups[size_t(factor_.order[size_t(i)])] = int32_t(i / group_);
    return std::move(m_);
  }

 private:
  // Dead columns become 0; columns go into the order of rounding.
  void take(std::vector<float> values) {
    pool_.split(rows_, 1, [&](Range part) {
      std::vector<float> row(static_cast<size_t>(cols_));
      for (int64_t r = part.begin; r < part.end; ++r) {
        float* from = values.data() + r * cols_;
        for (int64_t c = 0; c < cols_; ++c)
          if (factor_.dead[size_t(c)]) from[c] = 0;
        if (fixed_)
          for (int64_t g = 0; g < m_.groups; ++g)
            grid(g, r) =
                fit_grid({from + g * group_, size_t(std::min(group_, cols_ - g * group_))}, rules_.grid);
        for (int64_t i = 0; i < cols_; ++i) row[size_t(i)] = from[factor_.order[size_t(i)]];
        std::copy(row.begin(), row.end(), from);
      }
    });
    w_ = std::move(values);
  }

  Grid& grid(int64_t group, int64_t row) { return m_.grids[size_t(group * rows_ + row)]; }

  void fit(int64_t begin) {
    const auto count = size_t(std::min(group_, cols_ - begin));
    pool_.split(rows_, 1, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r)
        grid(begin / group_, r) = fit_grid({w_.data() + r * cols_ + begin, count}, rules_.grid);
    });
  }

  void round_block(int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    errors_.assign(size_t(rows_ * width), 0);
    const SymmetricMatrix& upper = *factor_.upper;
    std::vector<float> window(size_t(width * width));  // U[begin:end, begin:end]
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = i; j < end; ++j) window[size_t((i - begin) * width + j - begin)] = upper.at(i, j);
    pool_.split(rows_, 1, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r) {
        float* w = w_.data() + r * cols_;
        float* errors = errors_.data() + r * width;
        for (int64_t i = begin; i < end; ++i) {
          const int64_t col = factor_.order[size_t(i)];
          const Grid& g = grid((fixed_ ? col : i) / group_, r);
          const uint8_t code = code_of(w[i], g, rules_.grid.bits);
          m_.codes[size_t(r * cols_ + col)] = code;
          const float* u = window.data() + (i - begin) * width - begin;
          const float error = (w[i] - value_of(code, g)) / u[i];
          errors[i - begin] = error;
          for (int64_t j = i; j < end; ++j) w[j] -= error * u[j];
        }
      }
    });
    if (end == cols_) return;
    // W[:, end:] -= errors U[begin:end, end:]
    std::vector<float> turned(size_t((cols_ - end) * width));
    pool_.split(cols_ - end, SymmetricMatrix::kStrip, [&](Range part) {
      for (int64_t j = part.begin; j < part.end; ++j)
        for (int64_t i = begin; i < end; ++i) turned[size_t(j * width + i - begin)] = upper.at(i, end + j);
    });
    add_product({errors_.data(), rows_, width, width}, {turned.data(), cols_ - end, width, width}, -1,
                w_.data() + end, cols_, pool_);
  }

  const int64_t rows_, cols_, group_;
  const GptqFactor& factor_;
  const GptqRules& rules_;
  const bool fixed_;
  ThreadPool& pool_;
  GptqMatrix m_;
  std::vector<float> w_, errors_;
};

}  // namespace

int64_t GptqFactor::dead_columns() const { return std::count(dead.begin(), dead.end(), true); }

GptqFactor gptq_factor(InputMoments& moments, const GptqRules& rules, const std::string& matrix,
                       ThreadPool& pool) {
  const int64_t n = moments.cols;
  auto& h = moments.products;
  GptqFactor factor;
  factor.dead.resize(size_t(n));
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(h.at(i, i)))
      fail(
          ErrorKind::invalid_argument,
          "tensor {}: the calibration text gives input {} a mean square of {}; the model computes no numbers "
          "on this text",
          matrix, i, h.at(i, i));
    factor.dead[size_t(i)] = h.at(i, i) == 0;
    if (factor.dead[size_t(i)]) h.at(i, i) = 1;
    mean += double(h.at(i, i)) / double(n);
  }
  factor.order.resize(size_t(n));
  std::iota(factor.order.begin(), factor.order.end(), 0);
  if (rules.act_order) {
    std::stable_sort(factor.order.begin(), factor.order.end(),
                     [&](int32_t a, int32_t b) { return h.at(a, a) > h.at(b, b); });
    reorder(h, factor.order);
  }
  std::vector<float> diagonal;
  for (int64_t i = 0; i < n; ++i) diagonal.push_back(h.at(i, i));
  factor.damping = rules.damping;
  for (int attempt = 0;; ++attempt) {
    for (int64_t i = 0; i < n; ++i) h.at(i, i) = diagonal[size_t(i)] + float(factor.damping * mean);
    if (inverse_factor(h, pool)) break;
    if (attempt == kRetries)
      fail(ErrorKind::invalid_argument,
           "tensor {}: the inputs of the calibration text give no positive definite matrix, not with a "
           "damping of {} either; use more text or a larger --damping",
           matrix, factor.damping);
    factor.damping *= 10;
  }
  factor.upper = &h;
  return factor;
}

GptqMatrix gptq_round(std::vector<float> values, int64_t rows, int64_t cols, const GptqFactor& factor,
                      const GptqRules& rules, ThreadPool& pool) {
  return Columns(std::move(values), rows, cols, factor, rules, pool).round();
}

GptqMatrix round_to_nearest(std::span<const float> values, int64_t rows, int64_t cols, const GptqRules& rules,
                            ThreadPool& pool) {
  GptqMatrix m = empty(rows, cols, rules);
  const int64_t group = group_of(rules, cols);
  pool.split(rows, 1, [&](Range part) {
    for (int64_t row = part.begin; row < part.end; ++row)
      for (int64_t g = 0; g < m.groups; ++g) {
        const auto at = size_t(row * cols + g * group);
        const auto some = values.subspan(at, size_t(std::min(group, cols - g * group)));
        const Grid grid = m.grids[size_t(g * rows + row)] = fit_grid(some, rules.grid);
        for (size_t i = 0; i < some.size(); ++i) m.codes[at + i] = code_of(some[i], grid, rules.grid.bits);
      }
  });
  return m;
}

}  // namespace cairn::quantize
