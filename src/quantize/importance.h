// An importance matrix: how large the inputs of each column of a GGUF file's matrices are on calibration
// text.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "base/thread_pool.h"
#include "formats/requantize.h"
#include "models/model.h"

namespace cairn::quantize {

// For every matrix of a block of a model from a GGUF file, by its name there. What no calibration token
// reached (an expert that none chose) counts as all alike. folder: for files without names. on_rows: tokens
// of a block that are done.
formats::Importance importance_of(const models::Model&, std::vector<std::vector<int32_t>> samples,
                                  const std::filesystem::path& folder, ThreadPool&,
                                  const std::function<void(int64_t rows)>& on_rows = {});

}  // namespace cairn::quantize
