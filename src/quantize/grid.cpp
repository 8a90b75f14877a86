#include "quantize/grid.h"

#include <algorithm>
#include <cmath>

#include "base/float16.h"

namespace cairn::quantize {
namespace {

constexpr int kRanges = 80;              // tried by a search: 1, 0.99 ... 0.21 of the whole
constexpr float kLeastScale = 0x1p-24f;  // f16's smallest
constexpr float kMostScale = 65504;

float as_stored(float scale) {
  return f16_to_float(float_to_f16(std::clamp(scale, kLeastScale, kMostScale)));
}

Grid grid_of(float low, float high, const GridRules& rules) {
  const auto most = float(most_code(rules.bits));
  if (rules.symmetric) return {as_stored((high - low) / most), 1 << (rules.bits - 1)};
  const float scale = (high - low) / most;
  const int zero = std::min(int(std::lround(-low / scale)), most_code(rules.bits));
  if (zero >= 1) return {as_stored(scale), zero};
  // Zero 0 cannot be stored: the codes above 1 have to do for the positive side.
  return {as_stored(std::max(high / (most - 1), -low)), 1};
}

double loss(std::span<const float> values, const Grid& grid, int bits) {
  double sum = 0;
  for (const float v : values)
    sum += std::pow(std::fabs(double(value_of(code_of(v, grid, bits), grid)) - double(v)), 2.4);
  return sum;
}

}  // namespace

uint8_t code_of(float value, const Grid& grid, int bits) {
  const float code = std::nearbyint(value / grid.scale) + float(grid.zero);
  return uint8_t(std::clamp(code, 0.f, float(most_code(bits))));
}

Grid fit_grid(std::span<const float> values, const GridRules& rules) {
  float low = 0, high = 0;
  for (const float v : values) low = std::min(low, v), high = std::max(high, v);
  if (rules.symmetric) high = std::max(-low, high), low = -high;
  if (low == 0 && high == 0) low = -1, high = 1;
  Grid best = grid_of(low, high, rules);
  if (!rules.search) return best;
  double least = loss(values, best, rules.bits);
  for (int i = 1; i < kRanges; ++i) {
    const float p = 1 - float(i) / 100;
    const Grid grid = grid_of(p * low, p * high, rules);
    const double sum = loss(values, grid, rules.bits);
    if (sum < least) least = sum, best = grid;
  }
  return best;
}

}  // namespace cairn::quantize
