// The steady clock in seconds, for differences.
#pragma once

#include <chrono>

namespace cairn {

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace cairn
