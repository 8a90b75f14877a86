#include "quantize/gptq.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quantize/gptq_columns.h"

namespace cairn::quantize {
namespace {

constexpr Setting kSettings[] = {
    {"bits", "4", "bits of a code: 2, 3, 4 or 8"},
    {"group", "128", "input columns that share a scale; 0: all of a row"},
    {"asymmetric", "off",
     "ranges as the weights lie, not around 0: better at 2 and 3 bits, fewer fast readers"},
    {"search-range", "off", "try smaller ranges for each group and keep the one with the least error"},
    {"act-order", "off", "round the columns with the largest inputs first"},
    {"scattered-groups", "off",
     "with act-order: columns of a group are not neighbours (desc_act, slow to run)"},
    {"true-sequential", "on", "inputs of a product see the quantized products before it in the same block"},
    {"damping", "0.01", "of the mean square of the inputs, added to all"},
    {"round-to-nearest", "off", "no calibration: every weight by itself, the baseline"},
};

// A mixture's expert with fewer inputs than this share of its columns says nothing about most of them.
constexpr int64_t kFewRows = 4;

void check_finite(const Matrix& matrix, std::span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      fail(ErrorKind::invalid_file, "tensor {}: row {}, column {} is {}; such weights cannot be quantized",
           matrix.name, int64_t(i) / matrix.cols, int64_t(i) % matrix.cols, values[i]);
}

class Gptq final : public Encoder {
 public:
  explicit Gptq(const Settings& settings) {
    auto& grid = rules_.grid;
    grid.bits = int(settings.integer("bits", 2, 8));
    if (grid.bits != 2 && grid.bits != 3 && grid.bits != 4 && grid.bits != 8)
      fail(ErrorKind::invalid_argument, "--bits is {}; GPTQ files have 2, 3, 4 or 8", grid.bits);
    grid.symmetric = !settings.flag("asymmetric");
    grid.search = settings.flag("search-range");
    rules_.group = settings.integer("group", 0, 1 << 20);
    rules_.act_order = settings.flag("act-order");
    rules_.scattered = rules_.act_order && settings.flag("scattered-groups");
    rules_.damping = settings.number("damping", 1e-9, 1);
    nearest_ = settings.flag("round-to-nearest");
    sequential_ = settings.flag("true-sequential");
  }

  Moments moments() const override { return nearest_ ? Moments::none : Moments::products; }
  bool sequential() const override { return sequential_; }

  std::string keeps(const Matrix& m) const override {
    if (rules_.group != 0 && m.cols % rules_.group != 0)
      return fmt::format("{} columns are no multiple of the group of {}", m.cols, rules_.group);
    for (const auto& [count, what] : {std::pair(m.rows, "rows"), std::pair(m.cols, "columns")})
      if (count * rules_.grid.bits % 32 != 0)
        return fmt::format("{} {} of {} bits fill no whole 32-bit words", count, what, rules_.grid.bits);
    return {};
  }

  Encoded encode(std::span<const Matrix> matrices, ThreadPool& pool) override {
    Encoded result;
    // Matrices of one input share a factor, which takes the place of its moments.
    std::map<const InputMoments*, GptqFactor> factors;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const Matrix& matrix = matrices[i];
      auto values = matrix.values();
      check_finite(matrix, values);
      const bool few = matrix.inputs && matrix.expert && matrix.inputs->rows * kFewRows < matrix.cols;
      if (few)
        result.lines.push_back(
            fmt::format("{}: rounded to nearest; only {} calibration tokens chose this expert", matrix.name,
                        matrix.inputs->rows));
      GptqMatrix rounded;
      if (nearest_ || few) {
        rounded = round_to_nearest(values, matrix.rows, matrix.cols, rules_, pool);
      } else {
        auto found = factors.find(matrix.inputs.get());
        if (found == factors.end()) {
          found = factors.emplace(matrix.inputs.get(), gptq_factor(*matrix.inputs, rules_, matrix.name, pool))
                      .first;
          tell(matrix, found->second, result.lines);
        }
        rounded = gptq_round(std::move(values), matrix.rows, matrix.cols, found->second, rules_, pool);
      }
      for (auto& tensor : gptq_tensors(rounded, matrix.module())) result.tensors.push_back(std::move(tensor));
      if (matrix.inputs && std::none_of(matrices.begin() + int64_t(i) + 1, matrices.end(),
                                        [&](const Matrix& m) { return m.inputs == matrix.inputs; }))
        matrix.inputs->products = SymmetricMatrix();
    }
    return result;
  }

  nlohmann::ordered_json config() const override {
    nlohmann::ordered_json config = {{"quant_method", "gptq"},
                                     {"bits", rules_.grid.bits},
                                     {"group_size", rules_.group == 0 ? -1 : rules_.group},
                                     {"desc_act", rules_.scattered},
                                     {"sym", rules_.grid.symmetric},
                                     {"checkpoint_format", "gptq"},
                                     {"lm_head", false}};
    if (!nearest_) {
      config["static_groups"] = rules_.act_order && !rules_.scattered;
      config["true_sequential"] = sequential_;
      config["damp_percent"] = rules_.damping;
    }
    return config;
  }

 private:
  void tell(const Matrix& matrix, const GptqFactor& factor, std::vector<std::string>& lines) const {
    if (const auto dead = factor.dead_columns(); dead > 0)
      lines.push_back(
          fmt::format("{}: {} of {} input columns are 0 in all of the calibration text; their weights "
                      "become 0",
                      matrix.name, dead, matrix.cols));
    if (factor.damping > rules_.damping)
      lines.push_back(fmt::format("{}: needed a damping of {}", matrix.name, factor.damping));
  }

  GptqRules rules_;
  bool nearest_ = false, sequential_ = true;
};

}  // namespace

const Method kGptq = {
    "gptq", "2, 3, 4 or 8 bits, calibrated; the layout of published GPTQ checkpoints", kSettings,
    [](const Settings& settings) -> std::unique_ptr<Encoder> { return std::make_unique<Gptq>(settings); }};

}  // namespace cairn::quantize
