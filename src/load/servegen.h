// ServeGen's client descriptions (arXiv 2505.09999): per client and window of time a rate and the shape of
// the gaps, per longer window the distributions of lengths.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "load/session.h"

namespace cairn::load {

bool is_servegen(const std::filesystem::path&);  // a folder of chunk-N-trace.csv, or one of them

// All clients of the folder together, arrivals in order, each drawn when it is asked for. Without end in
// practice: weeks were recorded. `start` passes over seconds. Throws Error(invalid_file).
std::unique_ptr<SessionSource> servegen_sessions(const std::filesystem::path&, double start, uint64_t seed);

// A Python dictionary of numbers to shares as ServeGen writes them: "{224: 0.5, 225: 0.5}". Throws
// Error(invalid_file); shares need not add up to one, and "{}" is a histogram of nothing.
struct Histogram {
  std::vector<int64_t> values;
  std::vector<double> sums;  // running
  template <typename Random>
  int64_t draw(Random&) const;
};
Histogram parse_histogram(std::string_view text, const std::string& name);

}  // namespace cairn::load
