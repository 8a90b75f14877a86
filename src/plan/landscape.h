// A search's trials as a picture: where the good settings lie, and what each setting alone does.
#pragma once

#include <string>

#include "plan/search.h"

namespace cairn::plan {

// A complete SVG document. Left: a map over the two dimensions that matter most, in each cell the best value
// over all others (a cross: nothing there could run; empty: not measured). Right: for each dimension every
// trial as a dot over its value. The best trial is ringed.
std::string landscape(const Search&, const std::string& title, const std::string& subtitle,
                      const std::string& unit);

}  // namespace cairn::plan
