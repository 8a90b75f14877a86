#include "program/attention.h"

#include <bit>
#include <cmath>

namespace cairn::program {

std::vector<float> alibi_slopes(int64_t heads) {
  std::vector<float> slopes;
  const auto power = int64_t(std::bit_floor(uint64_t(heads)));
  for (int64_t h = 0; h < heads; ++h)
    slopes.push_back(h < power ? std::exp2(-8.f * float(h + 1) / float(power))
                               : std::exp2(-4.f * float(2 * (h - power) + 1) / float(power)));
  return slopes;
}

}  // namespace cairn::program
