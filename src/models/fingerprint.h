// Names a model by what it computes, cheaply: for caches that outlive the process.
#pragma once

#include <string>

#include "models/model.h"

namespace cairn::models {

// 32 hexadecimal digits from the program's text and, of every weight, its codec, shape
// and three samples of 4 KiB (beginning, middle, end). Two models of one shape that were trained differently
// differ in nearly every sample; the same file gives the same name wherever it lies. Reads some megabytes of
// a large file.
std::string fingerprint(const Model&);

}  // namespace cairn::models
