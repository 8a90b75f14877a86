// The definition that every matmul kernel is tested against, in double from the codec's own decoder.
#pragma once

#include <vector>

#include "codecs/codec.h"

namespace cairn::cpu {

struct MatMulReference {
  std::vector<double> y;          // [m, n]
  std::vector<double> magnitude;  // [m, n]: sum_k |x[m, k] w[n, k]|, what errors are measured against
};

// x [m, k], file_rows [n rows of k] in the codec's layout.
MatMulReference matmul_reference(codecs::CodecId, const std::byte* file_rows, int64_t n, int64_t k,
                                 const float* x, int64_t m);

}  // namespace cairn::cpu
