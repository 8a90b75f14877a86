// GET /metrics: what Prometheus scrapes (text format 0.0.4).
#pragma once

#include <string>

#include "serve/api/serving.h"

namespace cairn::serve {

std::string metrics_text(const Serving&, const HttpStats&);

}  // namespace cairn::serve
