// Rope parameters as configs spell them: rope_theta + rope_scaling (transformers 4) or rope_parameters (5).
#pragma once

#include "models/model.h"

namespace cairn::models {

// The default rope of the model. rotary_dim: the turned elements of a head. Throws for an unknown rope_type.
program::RopeTable read_rope(const Source&, int64_t rotary_dim, double default_theta = 10000);
// The same from a given object (Gemma 3 has one per layer type); scaling may be null.
program::RopeTable read_rope(const Source&, const nlohmann::json* scaling, double theta, int64_t rotary_dim);

}  // namespace cairn::models
