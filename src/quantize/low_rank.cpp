#include "quantize/low_rank.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/float16.h"
#include "program/low_rank.h"

namespace cairn::quantize {
namespace {

using Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<const RowMajor>;

// Eigenvalues of a Gram matrix are squares of singular values: below this share of the largest they are
// rounding errors.
constexpr double kNothing = 1e-13;
// The first raise of a diagonal that has to be, as a share of its mean; then ten times that, and so on.
constexpr double kFirstShift = 1e-6;

View view(std::span<const float> values, int64_t rows, int64_t cols) { return {values.data(), rows, cols}; }

bool all_zero(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
}

// W L, or W. shift is what the diagonal is raised by, and found out when it is negative.
MatrixXd whitened(std::span<const float> values, int64_t rows, int64_t cols, std::span<const float> moments,
                  double& shift) {
  MatrixXd w = view(values, rows, cols).cast<double>();
  if (moments.empty() || all_zero(moments)) {
    shift = 0;
    return w;
  }
  const MatrixXd c = view(moments, cols, cols).cast<double>();
  const double mean = c.diagonal().mean();
  for (double raise = std::max(shift, 0.0);; raise = std::max(kFirstShift, 10 * raise)) {
    const Eigen::LLT<MatrixXd> llt(c + MatrixXd(Eigen::VectorXd::Constant(cols, raise * mean).asDiagonal()));
    if (llt.info() != Eigen::Success) continue;
    shift = raise;
    return w * llt.matrixL();
  }
}

}  // namespace

Decomposition::Decomposition(std::span<const float> values, int64_t rows, int64_t cols,
                             std::span<const float> moments)
    : rows_(rows), cols_(cols) {
  shift_ = -1;
  const MatrixXd m = whitened(values, rows, cols, moments, shift_);
  const Eigen::SelfAdjointEigenSolver<MatrixXd> solver(rows <= cols ? MatrixXd(m * m.transpose())
                                                                    : MatrixXd(m.transpose() * m));
  const int64_t n = std::min(rows, cols);
  vectors_.reserve(size_t(n * n));
  for (int64_t i = n - 1; i >= 0; --i) {  // it sorts upwards
    energies_.push_back(std::max(0.0, solver.eigenvalues()(i)));
    for (int64_t j = 0; j < n; ++j) vectors_.push_back(float(solver.eigenvectors()(j, i)));
  }
}

Factors Decomposition::factors(std::span<const float> values, std::span<const float> moments,
                               int64_t rank) const {
  const auto something = std::find_if(energies_.begin(), energies_.end(), [&](double energy) {
    return !(energy > kNothing * energies_.front());
  });
  rank = std::max<int64_t>(1, std::min<int64_t>(rank, something - energies_.begin()));
  const int64_t n = std::min(rows_, cols_);
  const MatrixXd vectors = Eigen::Map<const Eigen::MatrixXf>(vectors_.data(), n, rank).cast<double>();
  MatrixXd u = vectors;
  if (rows_ > cols_) {
    double shift = shift_;
    u = whitened(values, rows_, cols_, moments, shift) * vectors;
    for (int64_t i = 0; i < rank; ++i)
      if (const double length = u.col(i).norm(); length > 0) u.col(i) /= length;
  }
  const MatrixXd v = u.transpose() * view(values, rows_, cols_).cast<double>();
  Factors f{rank, std::vector<float>(size_t(rows_ * rank)), std::vector<float>(size_t(rank * cols_))};
  Eigen::Map<RowMajor>(f.u.data(), rows_, rank) = u.cast<float>();
  Eigen::Map<RowMajor>(f.v.data(), rank, cols_) = v.cast<float>();
  return f;
}

std::vector<int64_t> choose_ranks(std::span<const Spectrum> matrices, double keep) {
  struct State {
    int64_t step = 0, rank = 0;
    double total = 0;
    bool closed = false, whole = false;
  };
  std::vector<State> states;
  double budget = 0;
  for (const auto& m : matrices) {
    State s;
    s.step = std::clamp<int64_t>(std::min(m.rows, m.cols) / 32, 1, 16);
    s.total = std::accumulate(m.energies.begin(), m.energies.end(), 0.0);
    states.push_back(s);
    budget += keep * double(m.rows * m.cols);
  }
  const auto numbers = [&](size_t i) {
    return states[i].whole ? matrices[i].rows * matrices[i].cols
                           : states[i].rank * (matrices[i].rows + matrices[i].cols);
  };
  const auto is_whole = [&](size_t i, int64_t rank) {
    const auto& m = matrices[i];
    return rank * (m.rows + m.cols) >= m.rows * m.cols;
  };
  // What the next step of a matrix costs, and what it gives of its output.
  struct Step {
    double cost = 0, gain = 0;
    bool whole = false;
  };
  const auto next = [&](size_t i) {
    const auto& m = matrices[i];
    const auto& s = states[i];
    Step step;
    step.whole = is_whole(i, s.rank + s.step);
    const int64_t end = step.whole ? int64_t(m.energies.size()) : s.rank + s.step;
    step.cost = double(step.whole ? m.rows * m.cols - numbers(i) : s.step * (m.rows + m.cols));
    for (int64_t r = s.rank; r < end; ++r) step.gain += m.energies[size_t(r)];
    if (s.total > 0) step.gain /= s.total;
    return step;
  };
  const auto advance = [&](size_t i, const Step& step) {
    budget -= step.cost;
    states[i].whole = states[i].closed = step.whole;
    if (!step.whole) states[i].rank += states[i].step;
  };
  for (size_t i = 0; i < states.size(); ++i) advance(i, next(i));
  if (budget < 0)
    fail(ErrorKind::invalid_argument,
         "--keep {} leaves less than a rank of {} for each matrix; keep more, or leave the model as it is",
         keep, states.empty() ? 0 : states.front().step);
  for (;;) {
    std::optional<size_t> best;
    Step best_step;
    for (size_t i = 0; i < states.size(); ++i) {
      if (states[i].closed) continue;
      const Step step = next(i);
      if (step.cost > budget) {
        states[i].closed = true;
      } else if (!best || step.gain * best_step.cost > best_step.gain * step.cost) {
        best = i, best_step = step;
      }
    }
    if (!best) break;
    advance(*best, best_step);
  }
  std::vector<int64_t> ranks;
  for (const auto& s : states) ranks.push_back(s.whole ? 0 : s.rank);
  return ranks;
}

namespace {

constexpr Setting kSettings[] = {
    {"keep", "0.8", "share of the matrices' numbers to keep, within each block"},
    {"plain", "off", "no calibration: the nearest matrix, not the nearest output"},
};

void check_finite(const Matrix& matrix, std::span<const float> values, const char* what) {
  for (const float v : values)
    if (!std::isfinite(v))
      fail(ErrorKind::invalid_file, "tensor {}: its {} hold {}; it cannot be factorised", matrix.name, what,
           v);
}

std::vector<float> whole_of(const SymmetricMatrix& half) {
  const int64_t n = half.size();
  std::vector<float> whole(size_t(n * n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i; j < n; ++j) whole[size_t(i * n + j)] = whole[size_t(j * n + i)] = half.at(i, j);
  return whole;
}

class LowRank final : public Encoder {
 public:
  explicit LowRank(const Settings& settings)
      : keep_(settings.number("keep", 0.01, 1)), plain_(settings.flag("plain")) {}

  Moments moments() const override { return plain_ ? Moments::none : Moments::products; }

  std::string keeps(const Matrix& m) const override {
    if (m.expert) return "experts are not multiplied as two factors";
    return {};
  }

  Encoded encode(std::span<const Matrix> matrices, ThreadPool& pool) override {
    std::map<const InputMoments*, std::vector<float>> squares;  // whole ones, for Eigen
    const auto moments = [&](const Matrix& m) -> std::span<const float> {
      if (plain_) return {};
      auto& whole = squares[m.inputs.get()];
      if (whole.empty()) whole = whole_of(m.inputs->products);
      return whole;
    };
    std::vector<std::span<const float>> inputs;
    for (const auto& m : matrices) {
      if (!plain_ && !m.inputs)
        fail(ErrorKind::invalid_argument,
             "tensor {}: no calibration text was read; give one, or say --plain for factors of the weights "
             "alone",
             m.name);
      inputs.push_back(moments(m));
      check_finite(m, inputs.back(), "inputs");
    }
    std::vector<std::optional<Decomposition>> parts(matrices.size());
    pool.split(int64_t(matrices.size()), 1, [&](Range range) {
      for (auto i = size_t(range.begin); i < size_t(range.end); ++i) {
        const auto& m = matrices[i];
        const auto values = m.values();
        check_finite(m, values, "weights");
        parts[i].emplace(values, m.rows, m.cols, inputs[i]);
      }
    });
    std::vector<Spectrum> spectra;
    for (size_t i = 0; i < parts.size(); ++i)
      spectra.push_back({matrices[i].rows, matrices[i].cols, parts[i]->energies()});
    const auto ranks = choose_ranks(spectra, keep_);
    std::vector<Encoded> encoded(matrices.size());
    pool.split(int64_t(matrices.size()), 1, [&](Range range) {
      for (auto i = size_t(range.begin); i < size_t(range.end); ++i)
        encoded[i] = encode_one(matrices[i], *parts[i], inputs[i], ranks[i]);
    });
    Encoded all;
    for (auto& e : encoded) {
      for (auto& tensor : e.tensors) all.tensors.push_back(std::move(tensor));
      for (auto& line : e.lines) all.lines.push_back(std::move(line));
    }
    return all;
  }

  nlohmann::ordered_json config() const override {
    return {{"quant_method", "lowrank"}, {"keep", keep_}, {"whitened", !plain_}};
  }

 private:
  static OutputTensor tensor(std::string name, const Matrix& like, std::vector<int64_t> shape,
                             std::span<const float> values) {
    const auto codec = like.stored->codec;
    if (codec == codecs::CodecId::f32) {
      OutputTensor out{std::move(name), "F32", std::move(shape), std::vector<std::byte>(values.size_bytes())};
      std::memcpy(out.bytes.data(), values.data(), values.size_bytes());
      return out;
    }
    const bool f16 = codec == codecs::CodecId::f16;
    OutputTensor out{std::move(name), f16 ? "F16" : "BF16", std::move(shape),
                     std::vector<std::byte>(values.size() * 2)};
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = f16 ? float_to_f16(values[i]) : float_to_bf16(values[i]);
      std::memcpy(out.bytes.data() + 2 * i, &half, 2);
    }
    return out;
  }

  static Encoded encode_one(const Matrix& m, const Decomposition& part, std::span<const float> moments,
                            int64_t rank) {
    Encoded result;
    if (rank == 0) {
      result.tensors.push_back(tensor(m.name, m, {m.rows, m.cols}, m.values()));
      result.lines.push_back(fmt::format("{}: whole; its factors would be no smaller", m.name));
      return result;
    }
    const auto f = part.factors(m.values(), moments, rank);
    const auto energies = part.energies();
    const double all = std::accumulate(energies.begin(), energies.end(), 0.0),
                 lost = std::accumulate(energies.begin() + f.rank, energies.end(), 0.0);
    result.lines.push_back(fmt::format(
        "{}: rank {} of {}, {:.2f} % of its {} lost{}", m.name, f.rank, energies.size(),
        all > 0 ? 100 * lost / all : 0.0, moments.empty() ? "squares" : "output's squares",
        part.shift() > 0 ? fmt::format(" (moments' diagonal raised by {:.0e})", part.shift()) : ""));
    result.tensors.push_back(tensor(m.module() + std::string(program::kLowRankU), m, {m.rows, f.rank}, f.u));
    result.tensors.push_back(tensor(m.module() + std::string(program::kLowRankV), m, {f.rank, m.cols}, f.v));
    return result;
  }

  double keep_;
  bool plain_;
};

}  // namespace

const Method kLowRank = {
    "lowrank", "two factors a matrix, their ranks from a size budget; calibrated", kSettings,
    [](const Settings& settings) -> std::unique_ptr<Encoder> { return std::make_unique<LowRank>(settings); }};

}  // namespace cairn::quantize
