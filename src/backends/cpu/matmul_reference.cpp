#include "backends/cpu/matmul_reference.h"

#include <cmath>

namespace cairn::cpu {

MatMulReference matmul_reference(codecs::CodecId id, const std::byte* file_rows, int64_t n, int64_t k,
                                 const float* x, int64_t m) {
  const codecs::Codec& codec = codecs::codec(id);
  const int64_t row_bytes = k / codec.block_elements * codec.block_bytes;
  MatMulReference result{std::vector<double>(size_t(m * n)), std::vector<double>(size_t(m * n))};
  std::vector<float> w(static_cast<size_t>(k));
  for (int64_t j = 0; j < n; j++) {
    codec.decode(file_rows + j * row_bytes, w.data(), k);
    for (int64_t i = 0; i < m; i++) {
      double sum = 0, magnitude = 0;
      for (int64_t c = 0; c < k; c++) {
        const double product = double{x[i * k + c]} * double{w[size_t(c)]};
        sum += product;
        magnitude += std::abs(product);
      }
      result.y[size_t(i * n + j)] = sum;
      result.magnitude[size_t(i * n + j)] = magnitude;
    }
  }
  return result;
}

}  // namespace cairn::cpu
