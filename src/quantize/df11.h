// bf16 weights without loss as DFloat11 (codecs/df11.h): the matrices of a block are a group, the embedding
// and the matrix of the scores are groups of their own.
#pragma once

#include "quantize/method.h"

namespace cairn::quantize {

extern const Method kDf11;

}  // namespace cairn::quantize
