// Weights as quantisers publish them in safetensors: codes in one tensor, scales, zeros and the groups of the
// columns in others. Here is what the tensors mean and how rows of a codec's blocks are made of them; which
// checkpoint has which is in models/split_weights.h.
//
//   w[row, col] = scale(row, group(col)) * e4m3(code[row, col])
//   w[row, col] = scale(row, group(col)) * (code[row, col] - zero(row, group(col)))     codes of `bits` bits
//   w[row, col] = bias(row, group(col)) + sum_i +-alpha(i, row, group(col))             planes of signs
//   (bcq.h)
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/stored_weight.h"

namespace cairn::codecs {

enum class SplitPart : uint8_t { scales, zeros, groups };  // zeros: of planes the biases

// How codes lie in 32-bit words; N rows, K columns.
enum class SplitCodes : uint8_t {
  e4m3_rows,     // [N, K] bytes
  int4_rows,     // [N, K/8] words, nibble col % 8; zeros [N/8, groups], nibble row % 8
  int4_by_rows,  // AWQ: [K, N/8] words, nibble order[row % 8]; zeros [groups, N/8] alike
  // GPTQ: [K * bits / 32, N] words: down the columns of the matrix of words run strings of bits, low bits
  // first, that hold code after code; zeros [groups, N * bits / 32] words, such strings along a row.
  ints_by_cols,
  // LUT-GEMM: [K/32, bits, N] words, bit col % 32 is set for +; alphas [groups, bits, N], biases [groups, N].
  planes_by_cols,
};

struct SplitLayout {
  std::string name;  // of the tensor of codes, for errors
  SplitCodes codes = SplitCodes::e4m3_rows;
  int bits = 4;                            // of a code, 2, 3, 4 or 8; planes, 1 to 4
  int64_t first_row = 0, stored_rows = 0;  // of a fused tensor, this weight has rows from first_row on

  CodecId scale_codec = CodecId::f32;  // f32, f16 or bf16
  // scale(row, group) is number (row / rows_per_scale) * row_stride + group * group_stride.
  int64_t rows_per_scale = 1, row_stride = 1, group_stride = 0;
  // Columns that share a scale; the last group may be cut. With a tensor of column groups (i32 [K]) they are
  // not neighbours and this is unused; the weight's codec is f32 then.
  int64_t group = 0;
  int64_t groups = 1;
  int zero_offset = 0;    // zero = (stored + zero_offset) mod 2^bits; without a tensor of zeros 2^bits / 2
  int64_t zero_rows = 0;  // of the stored tensor of zeros, in words: N * bits / 32
  CodecId bias_codec = CodecId::f32;  // f32 or f16; without a tensor of biases they are 0
  bool operator==(const SplitLayout&) const = default;
};

// Element (row, group) of the scales of a piece, in f32: for kernels that apply them to whole sums. Not for
// planes.
float split_scale(const StoredWeight&, size_t piece, int64_t row, int64_t group);

// What tells layouts apart besides the tensors' bytes: for keys of what is made from them.
uint64_t hash_of(const SplitLayout&);

// The codec that holds these codes exactly: blocks where the groups are whole blocks of neighbours, else f32.
CodecId codec_of_split(const SplitLayout&, int64_t cols, bool has_column_groups);

}  // namespace cairn::codecs
