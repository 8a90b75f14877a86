// The grid of codes that a group of weights is rounded to (Frantar et al. 2022, GPTQ, "quantizer"; the
// values that files hold are those of AutoGPTQ):
//
//   code = clamp(round(w / scale) + zero, 0, 2^bits - 1),   w' = scale * (code - zero)
//
// The range always includes 0. The scale is one that f16 holds, because files store it so.
#pragma once

#include <cstdint>
#include <span>

namespace cairn::quantize {

struct GridRules {
  int bits = 4;            // 2, 3, 4 or 8
  bool symmetric = false;  // zero is the middle code
  bool search = false;     // try smaller ranges and keep the one with the least sum of |w' - w|^2.4
};

struct Grid {
  float scale = 1;
  int zero = 1;  // at least 1: the files' first layout stores zero - 1 without a sign
  bool operator==(const Grid&) const = default;
};

// Precondition: values are finite.
Grid fit_grid(std::span<const float> values, const GridRules&);

inline int most_code(int bits) { return (1 << bits) - 1; }
// The nearest code.
uint8_t code_of(float value, const Grid&, int bits);
inline float value_of(uint8_t code, const Grid& grid) { return grid.scale * float(int(code) - grid.zero); }

}  // namespace cairn::quantize
