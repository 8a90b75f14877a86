#include "quantize/bcq.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/float16.h"
#include "codecs/bcq.h"
#include "quantize/gptq.h"

namespace cairn::quantize {
namespace {

constexpr Setting kSettings[] = {
    {"bits", "4", "planes of signs per weight: 1 to 4"},
    {"group", "128", "input columns that share scales; 0: all of a row"},
    {"rounds", "15", "of fitting scales to signs and signs to scales; 0: greedy"},
    {"importance", "off", "weigh errors with the squares of the inputs, from calibration text"},
    {"from", "weights",
     "what becomes signs: the weights, or the codes that gptq gives them (with bits 2, 3 or 4)"},
};

template <typename T>
OutputTensor tensor(std::string name, std::string dtype, std::vector<int64_t> shape,
                    const std::vector<T>& values) {
  OutputTensor result{std::move(name), std::move(dtype), std::move(shape), {}};
  result.bytes.resize(values.size() * sizeof(T));
  std::memcpy(result.bytes.data(), values.data(), result.bytes.size());
  return result;
}

const OutputTensor& part(std::span<const OutputTensor> tensors, std::string_view suffix) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const OutputTensor& t) { return t.name.ends_with(suffix); });
  assert(found != tensors.end());
  return *found;
}
template <typename T>
T element(const OutputTensor& tensor, int64_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * int64_t(sizeof(T)), sizeof(T));
  return value;
}
// Number `index` of codes that lie in runs of words `stride` apart.
int code_in(const OutputTensor& words, int bits, int64_t index, int64_t first, int64_t stride) {
  const int64_t at = index * bits, word = at / 32;
  uint64_t both = element<uint32_t>(words, first + word * stride);
  if (at % 32 + bits > 32) both |= uint64_t{element<uint32_t>(words, first + (word + 1) * stride)} << 32;
  return int(both >> (at % 32)) & ((1 << bits) - 1);
}

void set_signs(SignsMatrix& m, int64_t row, int64_t col, int code) {
  for (int i = 0; i < m.planes; ++i)
    m.signs[size_t((col / 32 * m.planes + i) * m.rows + row)] |= uint32_t(code >> i & 1) << (col % 32);
}

class Bcq final : public Encoder {
 public:
  explicit Bcq(const Settings& settings) {
    bits_ = int(settings.integer("bits", 1, codecs::kBcqMostPlanes));
    group_ = settings.integer("group", 0, 1 << 20);
    if (group_ % 32 != 0)
      fail(ErrorKind::invalid_argument, "--group is {}; planes of signs need a multiple of 32", group_);
    rounds_ = int(settings.integer("rounds", 0, 1000));
    importance_ = settings.flag("importance");
    const auto& from = settings.text("from");
    if (from == "gptq") {
      if (bits_ == 1) fail(ErrorKind::invalid_argument, "--bits is 1; gptq's codes have 2, 3 or 4");
      // Ranges as the weights lie cost nothing here: the bias holds their zeros.
      std::map<std::string, std::string, std::less<>> values;
      for (const auto& setting : kGptq.settings) values.emplace(setting.name, setting.standard);
      values["bits"] = settings.text("bits"), values["group"] = settings.text("group");
      values["asymmetric"] = "on";
      gptq_ = kGptq.make(Settings(std::move(values)));
    } else if (from != "weights") {
      fail(ErrorKind::invalid_argument, "--from is '{}'; it must be weights or gptq", from);
    }
  }

  Moments moments() const override {
    return gptq_ ? gptq_->moments() : importance_ ? Moments::squares : Moments::none;
  }
  bool sequential() const override { return gptq_ && gptq_->sequential(); }

  std::string keeps(const Matrix& m) const override {
    if (m.cols % 32 != 0) return fmt::format("{} columns are no multiple of 32", m.cols);
    if (group_ != 0 && m.cols % group_ != 0)
      return fmt::format("{} columns are no multiple of the group of {}", m.cols, group_);
    return gptq_ ? gptq_->keeps(m) : std::string();
  }

  Encoded encode(std::span<const Matrix> matrices, ThreadPool& pool) override {
    Encoded result;
    const auto add = [&](const SignsMatrix& signs, const std::string& module) {
      for (auto& t : signs_tensors(signs, module)) result.tensors.push_back(std::move(t));
    };
    if (gptq_) {
      Encoded codes = gptq_->encode(matrices, pool);
      result.lines = std::move(codes.lines);
      for (const auto& matrix : matrices) {
        std::vector<OutputTensor> module;
        for (auto& t : codes.tensors)
          if (t.name.substr(0, t.name.rfind('.')) == matrix.module()) module.push_back(std::move(t));
        int64_t rounded = 0;
        add(signs_of_gptq(bits_, module, &rounded), matrix.module());
        if (rounded > 0)
          result.lines.push_back(
              fmt::format("{}: half of {} scales is rounded to f16", matrix.name, rounded));
      }
      return result;
    }
    for (const auto& matrix : matrices) {
      const auto values = matrix.values();
      for (size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i]))
          fail(ErrorKind::invalid_file,
               "tensor {}: row {}, column {} is {}; such weights cannot be quantized", matrix.name,
               int64_t(i) / matrix.cols, int64_t(i) % matrix.cols, values[i]);
      const float* importance =
          importance_ && matrix.inputs && matrix.inputs->rows > 0 ? matrix.inputs->squares.data() : nullptr;
      add(fit_signs(values, matrix.rows, matrix.cols, group_ == 0 ? matrix.cols : group_, bits_, rounds_,
                    importance, matrix.name, pool),
          matrix.module());
    }
    return result;
  }

  nlohmann::ordered_json config() const override {
    return {{"quant_method", "bcq"}, {"bits", bits_}, {"group_size", group_ == 0 ? -1 : group_}};
  }

 private:
  int bits_ = 4, rounds_ = 15;
  int64_t group_ = 128;
  bool importance_ = false;
  std::unique_ptr<Encoder> gptq_;  // whose codes become signs, or null
};

}  // namespace

SignsMatrix fit_signs(std::span<const float> values, int64_t rows, int64_t cols, int64_t group, int planes,
                      int rounds, const float* importance, const std::string& name, ThreadPool& pool) {
  SignsMatrix m{planes, rows, cols, cols / group, {}, {}, {}};
  m.signs.resize(size_t(cols / 32 * planes * rows));
  m.alphas.resize(size_t(m.groups * planes * rows));
  pool.split(rows, 1, [&](Range part_of_rows) {
    std::vector<uint8_t> codes(static_cast<size_t>(group));
    for (int64_t row = part_of_rows.begin; row < part_of_rows.end; ++row)
      for (int64_t g = 0; g < m.groups; ++g) {
        const float* some = values.data() + row * cols + g * group;
        const auto fit =
            codecs::bcq_fit(some, int(group), importance ? importance + g * group : nullptr, planes, rounds);
        float alpha[8];
        for (int i = 0; i < planes; ++i) {
          const uint16_t half = float_to_f16(fit.alpha[i]);
          alpha[i] = f16_to_float(half);
          if (!std::isfinite(alpha[i]))
            fail(ErrorKind::invalid_file, "tensor {}: row {} needs the scale {}, past the f16 limit 65504",
                 name, row, fit.alpha[i]);
          m.alphas[size_t((g * planes + i) * rows + row)] = half;
        }
        if (rounds == 0)
          codecs::bcq_assign_greedy(some, int(group), alpha, planes, codes.data());
        else
          codecs::bcq_assign(some, int(group), alpha, 0, planes, codes.data());
        for (int64_t c = 0; c < group; ++c) set_signs(m, row, g * group + c, codes[size_t(c)]);
      }
  });
  return m;
}

SignsMatrix signs_of_gptq(int bits, std::span<const OutputTensor> module, int64_t* rounded) {
  const auto &codes = part(module, ".qweight"), &zeros = part(module, ".qzeros"),
             &scales = part(module, ".scales"), &columns = part(module, ".g_idx");
  const int64_t rows = codes.shape[1], cols = columns.shape[0], groups = scales.shape[0];
  SignsMatrix m{bits, rows, cols, groups, {}, {}, {}};
  m.signs.resize(size_t(cols / 32 * bits * rows));
  m.alphas.resize(size_t(groups * bits * rows));
  m.biases.resize(size_t(groups * rows));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t row = 0; row < rows; ++row) {
      const int zero =
          (code_in(zeros, bits, row, g * zeros.shape[1], 1) + 1) & ((1 << bits) - 1);  // stored less one
      const float scale = f16_to_float(element<uint16_t>(scales, g * rows + row));
      const auto exact = codecs::bcq_of_uniform(bits, scale, zero);
      bool all_exact = true;
      for (int i = 0; i < bits; ++i) {
        const uint16_t half = m.alphas[size_t((g * bits + i) * rows + row)] = float_to_f16(exact.alpha[i]);
        all_exact = all_exact && f16_to_float(half) == exact.alpha[i];
      }
      if (!all_exact) ++*rounded;
      m.biases[size_t(g * rows + row)] = exact.bias;
    }
  for (int64_t col = 0; col < cols; ++col) {
    assert(element<int32_t>(columns, col) == int32_t(col / (cols / groups)));
    for (int64_t row = 0; row < rows; ++row) set_signs(m, row, col, code_in(codes, bits, col, row, rows));
  }
  return m;
}

std::vector<OutputTensor> signs_tensors(const SignsMatrix& m, const std::string& module) {
  std::vector<OutputTensor> result;
  result.push_back(tensor(module + ".bW", "I32", {m.cols / 32, m.planes, m.rows}, m.signs));
  result.push_back(tensor(module + ".alpha", "F16", {m.groups, m.planes, m.rows}, m.alphas));
  if (!m.biases.empty()) result.push_back(tensor(module + ".q_bias", "F32", {m.groups, m.rows}, m.biases));
  return result;
}

const Method kBcq = {
    "bcq", "1 to 4 planes of signs with a scale each, for products by look-up (LUT-GEMM)", kSettings,
    [](const Settings& settings) -> std::unique_ptr<Encoder> { return std::make_unique<Bcq>(settings); }};

}  // namespace cairn::quantize
