// The members of a request that say how tokens are drawn (sampling_properties() in schemas.cpp).
#pragma once

#include "engine/serving/request.h"
#include "serve/api/serving.h"

namespace cairn::serve {

// Fills sampling, priority, ignore_end and reuse from a body that its schema has accepted. Throws
// ApiError(400) for what only the model can tell, such as token ids outside the vocabulary.
void read_sampling(const Json& body, const Serving&, engine::GenerateRequest&);

// `stop`, a string or a list of them.
std::vector<std::string> read_stop(const Json* stop);

}  // namespace cairn::serve
