// The tensors of a GPTQ checkpoint as AutoGPTQ writes them (checkpoint_format "gptq", its first). For a
// module with N = rows outputs and K = cols inputs, codes of `bits` bits low bits first in runs of 32-bit
// words:
//
//   qweight I32 [K / 32 * bits, N]       codes along K
//   qzeros  I32 [groups, N / 32 * bits]  zeros less one along N
//   scales  F16 [groups, N]
//   g_idx   I32 [K]                      group of each input column
//   w[n, k] = scales[g, n] * (code[n, k] - zero[g, n]),  g = g_idx[k]
//
// A run of 32 values takes `bits` words: value i has bits i * bits and following of the run. (For 3 bits this
// is what tools call their special case: values 10 and 21 lie across two words.)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quantize/grid.h"
#include "quantize/method.h"

namespace cairn::quantize {

struct GptqMatrix {
  int bits = 4;
  int64_t rows = 0, cols = 0, groups = 0;
  std::vector<uint8_t> codes;          // [rows, cols]
  std::vector<Grid> grids;             // [groups, rows]
  std::vector<int32_t> column_groups;  // [cols]
};

// Precondition: rows * bits and cols * bits are multiples of 32.
std::vector<OutputTensor> gptq_tensors(const GptqMatrix&, const std::string& module);

// Values of `bits` bits into words, low bits first; values.size() * bits is a multiple of 32.
std::vector<uint32_t> pack_bits(std::span<const uint8_t> values, int bits);

}  // namespace cairn::quantize
