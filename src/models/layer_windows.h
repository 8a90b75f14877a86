// Which layers look back only so far: sliding-window attention per layer.
#pragma once

#include <functional>

#include "models/model.h"

namespace cairn::models {

// One window per layer, 0 for full attention. config's layer_types decides when it is there; otherwise
// slides(layer) says which layers take `window`. A layer_types entry that cairn does not know, a list of the
// wrong length, and a sliding layer without a window are Errors.
std::vector<int64_t> layer_windows(const Source&, int64_t layers, int64_t window,
                                   const std::function<bool(int64_t)>& slides);

}  // namespace cairn::models
