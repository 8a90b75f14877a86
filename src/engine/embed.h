// Embeddings of texts, outside of a server.
#pragma once

#include <functional>
#include <vector>

#include "engine/engine.h"

namespace cairn::engine {

// One embedding a text, pooled as the model says and scaled to length 1. An encoder takes as many texts into
// a step as fit; another model reads them one by one. on_progress gets the texts done and may throw to stop.
// Throws Error(invalid_argument) naming the text when one is empty or longer than the context.
std::vector<std::vector<float>> embed(Engine&, std::span<const std::vector<int32_t>> texts,
                                      const std::function<void(size_t)>& on_progress = {});

}  // namespace cairn::engine
