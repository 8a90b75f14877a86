// What a GPU's parts can do, measured by small kernels (kernels/probe_*.cu): latency and bandwidth of its
// memories, rates of its matrix and other units, shared memory of neighbouring blocks, copies to and from the
// host, launches. After "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture" (Luo et al., 2024).
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/registry.h"

namespace cairn::cuda {

struct ProbeRow {
  std::string group, what;
  double value = 0;  // the median
  std::string unit;
  double spread = 0;         // standard deviation over mean
  double low = 0, high = 0;  // what is expected of this device; both 0: nothing is
  std::string note;
  std::string skipped;  // why there is no value: "needs sm_90"
  bool as_expected() const {
    return (low == 0 && high == 0) || (value >= low && (high == 0 || value <= high));
  }
};

// A line of a plot.
struct ProbeCurve {
  std::string plot, x_label, y_label, series;
  std::vector<std::pair<double, double>> points;
};

struct ProbeReport {
  DeviceFacts facts;
  std::vector<ProbeRow> rows;
  std::vector<ProbeCurve> curves;
  double clock_ghz = 0;  // seen while the ordinary units were busy
  double seconds = 0;    // of measuring
  int compiled = 0;      // kernels that had to be compiled first
};

// In the order in which they are measured.
const std::vector<std::string>& probe_groups();
// Throws Error(invalid_argument) for a name that is none of them.
void check_probe_groups(const std::vector<std::string>& groups);

// groups: some of probe_groups().
ProbeReport probe_device(const Device&, const std::vector<std::string>& groups, int repetitions,
                         const std::function<void(const std::string& group)>& progress = {});

std::vector<Variant> probe_memory_variants(int capability);
std::vector<Variant> probe_matrix_variants(int capability);
std::vector<Variant> probe_matrix_sm90_variants(int capability);
std::vector<Variant> probe_cluster_variants(int capability);
std::vector<Variant> probe_dpx_variants(int capability);

}  // namespace cairn::cuda
