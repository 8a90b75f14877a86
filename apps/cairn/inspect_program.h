#pragma once

#include <string>

#include "models/model.h"

namespace cairn::app {

// The work of every instruction for one step of `tokens` rows after `context` cached tokens, and its sum;
// each line names what the instruction mostly waits for on a machine of the given bandwidth and arithmetic.
std::string cost_text(const models::Model&, int64_t tokens, int64_t context);

}  // namespace cairn::app
