// Loads for the simulator: made, or read from published traces.
#pragma once

#include <filesystem>
#include <vector>

#include "engine/scheduling/simulate.h"

namespace cairn::engine {

// Requests at random times, independent of each other, with lengths from log-normal distributions.
struct PoissonLoad {
  double rate = 1;  // requests per second
  size_t requests = 100;
  double prompt_mean = 500, answer_mean = 150;  // tokens
  double prompt_sigma = 0.9, answer_sigma = 0.7;
  int64_t most_tokens = 4096;  // of prompt and answer; longer ones are cut
  uint64_t seed = 1;
};
std::vector<Arrival> poisson_load(const PoissonLoad&);

// The first `most` requests of a trace, times from 0 on. Knows by their content: Azure's 2023 and vidur's
// tables (CSV with times, context and generated tokens) and Mooncake's JSON lines (with content blocks of 512
// tokens). Throws Error(invalid_file) naming the line.
std::vector<Arrival> read_trace(const std::filesystem::path&, size_t most);

}  // namespace cairn::engine
