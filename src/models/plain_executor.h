// For tests only: what a program means, computed the plain way. One sequence from its first token, no cache,
// sums in double. Backends and families are compared with it.
#pragma once

#include <span>
#include <vector>

#include "models/model.h"

namespace cairn::models::testing {

// Scores of every position: [ids.size(), vocabulary]. rope_length: the length that length-dependent rope
// scalings assume.
std::vector<float> plain_logits(const Model&, std::span<const int32_t> ids, int64_t rope_length);

// What a model's scores, or an encoder's embeddings, are computed from: [ids.size(), dim].
std::vector<float> plain_hidden(const Model&, std::span<const int32_t> ids);

}  // namespace cairn::models::testing
