#include "models/plain_executor.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "program/rope_scaling.h"

namespace cairn::models::testing {
namespace {

using namespace cairn::program;

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::identity: return x;
    case Activation::relu: return std::max(x, 0.0);
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu: return x / (1 + std::exp(-1.702 * x));
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
  }
  return std::numeric_limits<double>::quiet_NaN();
}

class Run {
 public:
  Run(const Model& model, std::span<const int32_t> ids, int64_t rope_length)
      : model_(model),
        program_(model.program),
        tokens_(int64_t(ids.size())),
        numbers_(program_.values.size()),
        indices_(program_.values.size()),
        weights_(program_.weights.size()) {
    indices_[size_t(program_.ids.id)].assign(ids.begin(), ids.end());
    for (Value v : {program_.positions, program_.logit_rows}) {
      auto& all = indices_[size_t(v.id)];
      all.resize(ids.size());
      std::iota(all.begin(), all.end(), 0);
    }
    for (const auto& table : program_.ropes)
      ropes_.push_back(rope_frequencies(table.scaling, table.theta, int(table.rotary_dim), rope_length,
                                        table.max_position));
  }

  std::vector<float> result(Value output) {
    for (const auto& instruction : program_.instructions)
      std::visit([this](const auto& op) { run(op); }, instruction.operation);
    return numbers_[size_t(output.id)];
  }

 private:
  using Row = std::span<float>;

  std::span<const float> row(Value v, int64_t r) const {
    const auto width = size_t(program_.width(v));
    return std::span(numbers_[size_t(v.id)]).subspan(size_t(r) * width, width);
  }
  int64_t rows(Value v) const { return Bounds{tokens_, tokens_}.of(program_.info(v).shape.front()); }
  std::vector<float>& make(Value v) {
    auto& numbers = numbers_[size_t(v.id)];
    numbers.assign(size_t(rows(v) * program_.width(v)), 0);
    return numbers;
  }
  // All of a weight's pieces decoded, [rows, cols] each.
  const std::vector<float>& weight(Weight w) {
    auto& values = weights_[size_t(w.id)];
    if (!values.empty()) return values;
    const auto& bound = model_.weights[size_t(w.id)];
    const auto& codec = codecs::codec(bound.codec);
    std::vector<std::byte> room;
    for (size_t piece = 0; piece < bound.pieces.size(); ++piece) {
      const int64_t stored = bound.transposed ? bound.cols * bound.stored_cols : bound.rows * bound.cols;
      std::vector<float> decoded(static_cast<size_t>(stored));
      codec.decode(bound.transposed ? bound.pieces[piece].data
                                    : codecs::stored_rows(bound, piece, 0, bound.rows, room),
                   decoded.data(), stored);
      for (int64_t r = 0; r < bound.rows; ++r)
        for (int64_t c = 0; c < bound.cols; ++c)
          values.push_back(decoded[size_t(bound.transposed ? c * bound.stored_cols + bound.first_col + r
                                                           : r * bound.cols + c)]);
    }
    return values;
  }
  double gain(Weight w, int64_t i) { return w ? double(weight(w)[size_t(i)]) : 1.0; }

  // y row r = x row times the rows of w from first_row on
  void multiply(std::span<const float> x, Weight w, int64_t first_row, Weight bias, Row y) {
    const auto& values = weight(w);
    for (size_t n = 0; n < y.size(); ++n) {
      double sum = bias ? double(weight(bias)[n]) : 0;
      const float* line = &values[(size_t(first_row) + n) * x.size()];
      for (size_t k = 0; k < x.size(); ++k) sum += double(x[k]) * double(line[k]);
      y[n] = float(sum);
    }
  }
  Row line(std::vector<float>& y, Value v, int64_t r) {
    const auto width = size_t(program_.width(v));
    return std::span(y).subspan(size_t(r) * width, width);
  }
  void product(Value x, const Product& p) {
    auto& y = make(p.y);
    for (int64_t r = 0; r < rows(p.y); ++r) multiply(row(x, r), p.weight, 0, p.bias, line(y, p.y, r));
  }
  template <typename F>
  void elementwise(Value x, Value y, F f) {
    const auto& from = numbers_[size_t(x.id)];
    std::vector<float> to(from.size());
    for (size_t i = 0; i < from.size(); ++i) to[i] = float(f(i, double(from[i])));
    numbers_[size_t(y.id)] = std::move(to);
  }
  double at(Value v, size_t i) const { return double(numbers_[size_t(v.id)][i]); }

  void run(const Embed& op) {
    auto& y = make(op.y);
    const auto width = size_t(program_.width(op.y));
    const auto& table = weight(op.table);
    for (int64_t t = 0; t < tokens_; ++t) {
      const auto id = size_t((op.ids ? indices_[size_t(op.ids.id)][size_t(t)] : 0) + op.offset);
      for (size_t i = 0; i < width; ++i) y[size_t(t) * width + i] = table[id * width + i] * op.scale;
    }
  }
  void run(const GatherRows& op) { numbers_[size_t(op.y.id)] = numbers_[size_t(op.x.id)]; }
  void run(const MatMul& op) {
    for (const auto& p : op.products) product(op.x, p);
  }
  void run(const GatedMatMul& op) {
    product(op.x, {op.gate, {}, op.y});
    const auto gate = numbers_[size_t(op.y.id)];
    product(op.x, {op.up, {}, op.y});
    elementwise(op.y, op.y,
                [&](size_t i, double up) { return activate(op.activation, double(gate[i])) * up; });
  }
  void run(const Logits& op) {
    product(op.x, {op.weight, op.bias, op.y});
    elementwise(op.y, op.y, [&](size_t, double s) {
      return op.softcap != 0 ? op.softcap * std::tanh(s * op.scale / op.softcap) : s * op.scale;
    });
  }
  void run(const Activate& op) {
    elementwise(op.x, op.y, [&](size_t, double x) { return activate(op.activation, x); });
  }
  void run(const GatedActivation& op) {
    elementwise(op.gate, op.y,
                [&](size_t i, double gate) { return activate(op.activation, gate) * at(op.up, i); });
  }
  void run(const Add& op) {
    elementwise(op.a, op.y, [&](size_t i, double a) { return a + at(op.b, i) * double(op.b_scale); });
  }
  void run(const Clamp& op) {
    const double limit = op.limit;
    elementwise(op.x, op.y, [&](size_t, double x) { return std::clamp(x, -limit, limit); });
  }
  void run(const SoftCap& op) {
    elementwise(op.x, op.y, [&](size_t, double x) {
      return op.cap != 0 ? op.cap * std::tanh(x * op.scale / op.cap) : x * op.scale;
    });
  }
  void run(const GateRows& op) {
    const auto width = size_t(program_.width(op.x));
    elementwise(op.x, op.y, [&](size_t i, double x) {
      return x * activate(Activation::sigmoid, at(op.gate, i / width));
    });
  }
  void run(const RmsNorm& op) {
    const auto group = size_t(op.group != 0 ? op.group : program_.width(op.x));
    std::vector<double> scale(numbers_[size_t(op.x.id)].size() / group);
    for (size_t g = 0; g < scale.size(); ++g) {
      double squares = 0;
      for (size_t i = 0; i < group; ++i) squares += at(op.x, g * group + i) * at(op.x, g * group + i);
      scale[g] = 1 / std::sqrt(squares / double(group) + double(op.eps));
    }
    elementwise(op.x, op.y, [&](size_t i, double x) {
      return x * scale[i / group] * (double(op.offset) + gain(op.weight, int64_t(i % group)));
    });
  }
  // Models are opened with basic instructions only.
  void run(const LowRankMlp&) { assert(false); }
  void run(const LowRankAttention&) { assert(false); }
  void run(const LayerNorm& op) {
    const auto width = size_t(program_.width(op.x));
    std::vector<double> mean(size_t(rows(op.x))), scale(mean.size());
    for (size_t r = 0; r < mean.size(); ++r) {
      double variance = 0;
      for (size_t i = 0; i < width; ++i) mean[r] += at(op.x, r * width + i) / double(width);
      for (size_t i = 0; i < width; ++i) {
        const double d = at(op.x, r * width + i) - mean[r];
        variance += d * d / double(width);
      }
      scale[r] = 1 / std::sqrt(variance + double(op.eps));
    }
    elementwise(op.x, op.y, [&](size_t i, double x) {
      const auto column = int64_t(i % width);
      return (x - mean[i / width]) * scale[i / width] * gain(op.weight, column) +
             (op.bias ? double(weight(op.bias)[size_t(column)]) : 0.0);
    });
  }
  void run(const AddRmsNorm& op) {
    run(Add{op.a, op.b, op.sum, 1});
    run(RmsNorm{op.sum, op.weight, op.y, op.eps, op.offset, 0});
  }
  void run(const Rope& op) {
    const auto& frequencies = ropes_[size_t(op.table)];
    auto y = numbers_[size_t(op.x.id)];
    const int64_t half = op.rotary_dim / 2;
    for (int64_t t = 0; t < tokens_; ++t)
      for (int64_t h = 0; h < op.heads; ++h)
        for (int64_t i = 0; i < half; ++i) {
          const double angle = double(t) * double(frequencies.inverse_frequencies[size_t(i)]);
          const double c = std::cos(angle) * double(frequencies.attention_factor);
          const double s = std::sin(angle) * double(frequencies.attention_factor);
          const bool adjacent = op.pairing == RopePairing::adjacent;
          float* head = &y[size_t((t * op.heads + h) * op.head_dim)];
          float &a = head[adjacent ? 2 * i : i], &b = head[adjacent ? 2 * i + 1 : i + half];
          const double from_a = double(a), from_b = double(b);
          a = float(from_a * c - from_b * s);
          b = float(from_b * c + from_a * s);
        }
    numbers_[size_t(op.y.id)] = std::move(y);
  }
  void run(const KvWrite& op) {
    slots_.resize(program_.kv.size());
    slots_[size_t(op.slot)] = {op.k, op.v};
  }
  void run(const Attention& op) {
    const auto& slot = program_.kv[size_t(op.slot)];
    const auto [k, v] = slots_[size_t(op.slot)];
    const int64_t per_kv_head = op.heads / slot.kv_heads, dk = slot.head_dim_k, dv = slot.head_dim_v;
    auto& y = make(op.y);
    for (int64_t t = 0; t < tokens_; ++t)
      for (int64_t h = 0; h < op.heads; ++h) {
        const int64_t kv_head = h / per_kv_head;
        const int64_t first = op.window > 0 ? std::max<int64_t>(0, t - op.window + 1) : 0;
        const double slope = std::pow(2.0, -8.0 * double(h + 1) / double(op.heads));
        const int64_t end = op.causal ? t + 1 : op.window > 0 ? std::min(tokens_, t + op.window) : tokens_;
        std::vector<double> scores;
        for (int64_t key = first; key < end; ++key) {
          double score = 0;
          for (int64_t i = 0; i < dk; ++i)
            score += double(row(op.q, t)[size_t(h * dk + i)]) * double(row(k, key)[size_t(kv_head * dk + i)]);
          score *= double(op.scale);
          if (op.softcap != 0) score = op.softcap * std::tanh(score / op.softcap);
          if (op.alibi) score += slope * double(key - t);
          scores.push_back(score);
        }
        double top = *std::max_element(scores.begin(), scores.end()), sum = 0;
        if (op.sinks) top = std::max(top, double(weight(op.sinks)[size_t(h)]));
        for (double& score : scores) sum += score = std::exp(score - top);
        if (op.sinks) sum += std::exp(double(weight(op.sinks)[size_t(h)]) - top);
        for (int64_t i = 0; i < dv; ++i) {
          double value = 0;
          for (int64_t key = first; key < end; ++key)
            value += scores[size_t(key - first)] / sum * double(row(v, key)[size_t(kv_head * dv + i)]);
          y[size_t((t * op.heads + h) * dv + i)] = float(value);
        }
      }
  }
  void run(const Route& op) {
    const auto top_k = size_t(program_.width(op.chosen));
    auto& weights = make(op.weights);
    auto& chosen = indices_[size_t(op.chosen.id)];
    chosen.assign(weights.size(), 0);
    for (int64_t t = 0; t < tokens_; ++t) {
      const auto scores = row(op.scores, t);
      const double top = *std::max_element(scores.begin(), scores.end());
      std::vector<double> p;
      for (float score : scores) p.push_back(std::exp(double(score) - top));
      double sum = std::accumulate(p.begin(), p.end(), 0.0);
      std::vector<size_t> order(p.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
      if (op.routing == Routing::softmax_topk_renorm) {
        sum = 0;
        for (size_t s = 0; s < top_k; ++s) sum += p[order[s]];
      }
      for (size_t s = 0; s < top_k; ++s) {
        weights[size_t(t) * top_k + s] = float(p[order[s]] / sum);
        chosen[size_t(t) * top_k + s] = int32_t(order[s]);
      }
    }
  }
  void run(const ExpertMatMul& op) {
    const int64_t top_k = program_.width(op.chosen);
    for (const auto& p : op.products) {
      auto& y = make(p.y);
      for (int64_t pair = 0; pair < tokens_ * top_k; ++pair) {
        const int64_t expert = indices_[size_t(op.chosen.id)][size_t(pair)];
        multiply(row(op.x, op.per_choice ? pair : pair / top_k), p.weight, expert * program_.width(p.y), {},
                 line(y, p.y, pair));
      }
    }
  }
  void run(const DecodeGroup&) {}  // every weight is held decoded
  void run(const ExpertCombine& op) {
    const int64_t top_k = program_.width(op.weights);
    auto& y = make(op.y);
    const auto width = size_t(program_.width(op.y));
    for (size_t i = 0; i < y.size(); ++i) {
      double sum = 0;
      for (int64_t s = 0; s < top_k; ++s) {
        const auto pair = int64_t(i / width) * top_k + s;
        sum += at(op.weights, size_t(pair)) * double(row(op.x, pair)[i % width]);
      }
      y[i] = float(sum);
    }
  }

  struct Slot {
    Value k, v;
  };
  const Model& model_;
  const Program& program_;
  const int64_t tokens_;
  std::vector<std::vector<float>> numbers_;
  std::vector<std::vector<int32_t>> indices_;
  std::vector<std::vector<float>> weights_;
  std::vector<RopeFrequencies> ropes_;
  std::vector<Slot> slots_;
};

}  // namespace

std::vector<float> plain_logits(const Model& model, std::span<const int32_t> ids, int64_t rope_length) {
  return Run(model, ids, rope_length).result(model.program.logits);
}

std::vector<float> plain_hidden(const Model& model, std::span<const int32_t> ids) {
  return Run(model, ids, int64_t(ids.size())).result(model.program.hidden);
}

}  // namespace cairn::models::testing
