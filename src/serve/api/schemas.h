// The schemas of all bodies. Each file has the ones of its endpoints, as JSON text.
#pragma once

#include "serve/api/schema.h"

namespace cairn::serve {

// Checked once at the start; the defaults that depend on the model are filled in by openapi.cpp.
const Schemas& schemas();

// Parts of it. Members of "sampling" and "constraints" are merged into the requests of all generating
// endpoints.
Json sampling_properties();
Json chat_schemas();
Json completion_schemas();
Json response_schemas();
Json message_schemas();
Json service_schemas();

// Adds the members of `more` that `properties` lacks.
void merge_properties(Json& properties, const Json& more);

}  // namespace cairn::serve
