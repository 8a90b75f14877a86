// A run as a picture: latency distributions, throughput and concurrency over time, every request's first
// token.
#pragma once

#include <string>

#include "load/report.h"

namespace cairn::load {

// A complete SVG document of 1080 by 840 units, without scripts, links or fonts of its own. `title` and
// `subtitle` are escaped.
std::string plot(const Run&, const Summary&, const std::string& title, const std::string& subtitle);

}  // namespace cairn::load
