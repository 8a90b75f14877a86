#include "codecs/stored_weight.h"

#include <cassert>

namespace cairn::codecs {

uint64_t StoredPiece::all_bytes() const {
  uint64_t sum = bytes;
  for (const auto& part : beside) sum += part.bytes;
  return sum;
}

std::vector<float> decode_vector(const StoredWeight& weight) {
  assert(weight.rows == 1 && !weight.transposed);
  std::vector<float> values(size_t(weight.cols));
  codec(weight.codec).decode(weight.pieces.front().data, values.data(), weight.cols);
  return values;
}

std::vector<float> decode_transposed(const StoredWeight& weight, size_t piece) {
  assert(weight.transposed && codec(weight.codec).block_elements == 1);
  const auto& format = codec(weight.codec);
  std::vector<float> values(size_t(weight.rows * weight.cols)), line(size_t(weight.stored_cols));
  const std::byte* source = weight.pieces[piece].data;
  for (int64_t col = 0; col < weight.cols; ++col) {
    format.decode(source + col * weight.stored_cols * format.block_bytes, line.data(), weight.stored_cols);
    for (int64_t row = 0; row < weight.rows; ++row)
      values[size_t(row * weight.cols + col)] = line[size_t(weight.first_col + row)];
  }
  return values;
}

}  // namespace cairn::codecs
