#include "quantize/gptq.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quantize/gptq_layout.h"
#include "quantize/grid.h"

namespace cairn::quantize {
namespace {

constexpr Setting kSettings[] = {
    {"bits", "4", "bits of a code: 2, 3, 4 or 8"},
    {"group", "128", "input columns that share a scale; 0: all of a row"},
    {"asymmetric", "off",
     "ranges as the weights lie, not around 0: better at 2 and 3 bits, fewer fast readers"},
    {"search-range", "off", "try smaller ranges for each group and keep the one with the least error"},
    {"round-to-nearest", "off", "no calibration: every weight by itself, the baseline"},
};

void check_finite(const Matrix& matrix, std::span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      fail(ErrorKind::invalid_file, "tensor {}: row {}, column {} is {}; such weights cannot be quantized",
           matrix.name, int64_t(i) / matrix.cols, int64_t(i) % matrix.cols, values[i]);
}

class Gptq final : public Encoder {
 public:
  explicit Gptq(const Settings& settings) {
    rules_.bits = int(settings.integer("bits", 2, 8));
    if (rules_.bits != 2 && rules_.bits != 3 && rules_.bits != 4 && rules_.bits != 8)
      fail(ErrorKind::invalid_argument, "--bits is {}; GPTQ files have 2, 3, 4 or 8", rules_.bits);
    rules_.symmetric = !settings.flag("asymmetric");
    rules_.search = settings.flag("search-range");
    group_ = settings.integer("group", 0, 1 << 20);
  }

  std::string keeps(const Matrix& m) const override {
    if (group_ != 0 && m.cols % group_ != 0)
      return fmt::format("{} columns are no multiple of the group of {}", m.cols, group_);
    for (const auto& [count, what] : {std::pair(m.rows, "rows"), std::pair(m.cols, "columns")})
      if (count * rules_.bits % 32 != 0)
        return fmt::format("{} {} of {} bits fill no whole 32-bit words", count, what, rules_.bits);
    return {};
  }

  Encoded encode(std::span<const Matrix> matrices, ThreadPool& pool) override {
    Encoded result;
    for (const auto& matrix : matrices) {
      const auto values = matrix.values();
      check_finite(matrix, values);
      for (auto& tensor : gptq_tensors(round_to_nearest(matrix, values, pool), matrix.module()))
        result.tensors.push_back(std::move(tensor));
    }
    return result;
  }

  nlohmann::ordered_json config() const override {
    return {{"quant_method", "gptq"}, {"bits", rules_.bits},     {"group_size", group_ == 0 ? -1 : group_},
            {"desc_act", false},      {"sym", rules_.symmetric}, {"checkpoint_format", "gptq"},
            {"lm_head", false}};
  }

 private:
  GptqMatrix empty(const Matrix& matrix) const {
    const int64_t group = group_ == 0 ? matrix.cols : group_;
    GptqMatrix m{rules_.bits, matrix.rows, matrix.cols, matrix.cols / group, {}, {}, {}};
    m.codes.resize(size_t(m.rows * m.cols));
    m.grids.resize(size_t(m.groups * m.rows));
    for (int64_t col = 0; col < m.cols; ++col) m.column_groups.push_back(int32_t(col / group));
    return m;
  }

  GptqMatrix round_to_nearest(const Matrix& matrix, std::span<const float> values, ThreadPool& pool) const {
    GptqMatrix m = empty(matrix);
    const int64_t group = m.cols / m.groups;
    pool.split(m.rows, 1, [&](Range part) {
      for (int64_t row = part.begin; row < part.end; ++row)
        for (int64_t g = 0; g < m.groups; ++g) {
          const auto at = size_t(row * m.cols + g * group);
          const auto some = values.subspan(at, size_t(group));
          const Grid grid = m.grids[size_t(g * m.rows + row)] = fit_grid(some, rules_);
          for (size_t i = 0; i < some.size(); ++i) m.codes[at + i] = code_of(some[i], grid, rules_.bits);
        }
    });
    return m;
  }

  GridRules rules_;
  int64_t group_ = 128;
};

}  // namespace

const Method kGptq = {
    "gptq", "2, 3, 4 or 8 bits, calibrated; the layout of published GPTQ checkpoints", kSettings,
    [](const Settings& settings) -> std::unique_ptr<Encoder> { return std::make_unique<Gptq>(settings); }};

}  // namespace cairn::quantize
