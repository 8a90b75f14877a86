// GET /openapi.json: the API as the server checks it.
#pragma once

#include <string>

#include "serve/api/serving.h"

namespace cairn::serve {

// OpenAPI 3.1. The schemas are those that requests are checked against (schemas.h), the paths those of the
// route table (routes.h), the defaults those of the model that is served.
std::string openapi_document(const Serving&, bool needs_key);

}  // namespace cairn::serve
