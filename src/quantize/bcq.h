// Planes of signs for LUT-GEMM (codecs/bcq.h), in the layout of docs/weights.md: fitted to the weights, or
// GPTQ's codes stored as signs without loss.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "quantize/method.h"

namespace cairn::quantize {

extern const Method kBcq;

struct SignsMatrix {
  int planes = 3;
  int64_t rows = 0, cols = 0, groups = 0;
  std::vector<uint32_t> signs;   // [cols / 32, planes, rows]
  std::vector<uint16_t> alphas;  // f16 [groups, planes, rows]
  std::vector<float> biases;     // [groups, rows]; empty: none
};

// Scales fitted to every group of `group` neighbours by codecs::bcq_fit. importance: null, or [cols].
// Precondition: cols % 32 == 0, cols % group == 0. Throws Error naming the matrix for scales past f16.
SignsMatrix fit_signs(std::span<const float> values, int64_t rows, int64_t cols, int64_t group, int planes,
                      int rounds, const float* importance, const std::string& name, ThreadPool&);

// The tensors of GPTQ's layout (gptq_layout.h; groups of neighbours, bits up to 4) as signs: the same
// numbers, but where half of a scale is too small for f16 (`rounded` counts those).
SignsMatrix signs_of_gptq(int bits, std::span<const OutputTensor> module, int64_t* rounded);

std::vector<OutputTensor> signs_tensors(const SignsMatrix&, const std::string& module);

}  // namespace cairn::quantize
