#include "quantize/gptq_layout.h"

#include <cstring>

#include "base/float16.h"

namespace cairn::quantize {
namespace {

template <typename T>
OutputTensor tensor(std::string name, std::string dtype, std::vector<int64_t> shape,
                    const std::vector<T>& values) {
  OutputTensor result{std::move(name), std::move(dtype), std::move(shape), {}};
  result.bytes.resize(values.size() * sizeof(T));
  std::memcpy(result.bytes.data(), values.data(), result.bytes.size());
  return result;
}

}  // namespace

std::vector<uint32_t> pack_bits(std::span<const uint8_t> values, int bits) {
  std::vector<uint32_t> words(values.size() * size_t(bits) / 32);
  uint64_t pending = 0;
  int held = 0;
  size_t word = 0;
  for (const uint8_t value : values) {
    pending |= uint64_t{value} << held;
    held += bits;
    if (held < 32) continue;
    words[word++] = uint32_t(pending);
    pending >>= 32;
    held -= 32;
  }
  return words;
}

std::vector<OutputTensor> gptq_tensors(const GptqMatrix& m, const std::string& module) {
  const int64_t words = m.cols * m.bits / 32, zero_words = m.rows * m.bits / 32;
  std::vector<uint32_t> qweight(size_t(words * m.rows));
  for (int64_t row = 0; row < m.rows; ++row) {
    const auto line = pack_bits(std::span(m.codes).subspan(size_t(row * m.cols), size_t(m.cols)), m.bits);
    for (int64_t w = 0; w < words; ++w) qweight[size_t(w * m.rows + row)] = line[size_t(w)];
  }
  std::vector<uint32_t> qzeros;
  std::vector<uint16_t> scales;
  for (int64_t group = 0; group < m.groups; ++group) {
    std::vector<uint8_t> zeros;
    for (int64_t row = 0; row < m.rows; ++row) {
      const Grid& grid = m.grids[size_t(group * m.rows + row)];
      zeros.push_back(uint8_t(grid.zero - 1));
      scales.push_back(float_to_f16(grid.scale));
    }
    const auto line = pack_bits(zeros, m.bits);
    qzeros.insert(qzeros.end(), line.begin(), line.end());
  }
  std::vector<OutputTensor> result;
  result.push_back(tensor(module + ".qweight", "I32", {words, m.rows}, qweight));
  result.push_back(tensor(module + ".qzeros", "I32", {m.groups, zero_words}, qzeros));
  result.push_back(tensor(module + ".scales", "F16", {m.groups, m.rows}, scales));
  result.push_back(tensor(module + ".g_idx", "I32", {m.cols}, m.column_groups));
  return result;
}

}  // namespace cairn::quantize
