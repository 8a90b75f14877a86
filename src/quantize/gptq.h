// GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323): columns are rounded one after another, and the error of
// each is pushed into the columns that are still to come, as far as the inputs that calibration saw allow.
// Round-to-nearest, its baseline, is the same without the pushing.
#pragma once

#include "quantize/method.h"

namespace cairn::quantize {

extern const Method kGptq;

}  // namespace cairn::quantize
