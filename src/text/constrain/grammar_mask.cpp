#include "text/constrain/grammar_mask.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace cairn::text {

namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
constexpr size_t kLanes = 8;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

// Bound: the memory of the logits, read and written once; words of all ones or zeros do less.
void apply_mask(std::span<const uint32_t> bits, std::span<float> logits) {
  const Ints place = {1, 2, 4, 8, 16, 32, 64, 128};
  const Floats none = Floats{} - kInfinity;
  const size_t whole = std::min(bits.size(), logits.size() / 32);
  for (size_t w = 0; w < whole; ++w) {
    float* block = logits.data() + w * 32;
    if (bits[w] == 0xffffffff) continue;
    if (bits[w] == 0) {
      for (size_t i = 0; i < 32; i += kLanes) std::memcpy(block + i, &none, sizeof none);
      continue;
    }
    for (size_t i = 0; i < 32; i += kLanes) {
      const Ints byte = Ints{} + int32_t(bits[w] >> i & 0xff);
      Floats values;
      std::memcpy(&values, block + i, sizeof values);
      values = (byte & place) != 0 ? values : none;
      std::memcpy(block + i, &values, sizeof values);
    }
  }
  for (size_t i = whole * 32; i < logits.size(); ++i)
    if (i / 32 >= bits.size() || !(bits[i / 32] >> (i % 32) & 1)) logits[i] = -kInfinity;
}

void GrammarMask::accept(TokenId id) {
  if (!matcher_.accept(id)) fail(ErrorKind::invalid_argument, "token {} does not fit the grammar", id);
  ready_ = false;
}

}  // namespace cairn::text
