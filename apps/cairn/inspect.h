#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "formats/checkpoint.h"

namespace cairn::app {

// What `cairn inspect` prints about a model's files, before any model code looks at them.
nlohmann::ordered_json inspection_json(const formats::Checkpoint&);
std::string inspection_text(const formats::Checkpoint&, bool all_tensors);

}  // namespace cairn::app
