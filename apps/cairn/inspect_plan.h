#pragma once

#include <string>

#include "cairn/cairn.h"
#include "models/model.h"

namespace cairn::app {

// Where each layer's weights and cache would lie. Without a GPU, LoadOptions::gpu_memory describes one.
std::string plan_text(const models::Model&, const LoadOptions&);

}  // namespace cairn::app
