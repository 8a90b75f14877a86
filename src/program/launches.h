// Who waits for whom, the host or the device: a trace's kernels and the calls that launched them, summed as
// in "Characterizing and Optimizing LLM Inference Workloads on CPU-GPU Coupled Architectures" (Vellaisamy et
// al., ISPASS 2025).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "program/trace.h"

namespace cairn::program {

// All times in seconds, over all steps of a trace.
struct LaunchTotals {
  int64_t steps = 0, kernels = 0;
  double queued = 0;   // from each launching call to its kernel's start: the paper's TKLQT
  double running = 0;  // of all kernels
  double busy = 0;     // at least one kernel running
  double latency = 0;  // from the first call of each step to the end of its last kernel
  double idle() const { return latency > busy ? latency - busy : 0; }
  double average_kernel() const { return kernels == 0 ? 0 : running / double(kernels); }
};
LaunchTotals launch_totals(const Trace&);

// A run of kernels, by name, that always follows like this where its first one appears, and would save
// launches as one.
struct LaunchChain {
  std::vector<std::string> names;
  int64_t count = 0;
};
// Of chains with `length` kernels those of which every occurrence of the first name continues so; without
// overlap, steps apart, the most saved launches first.
std::vector<LaunchChain> certain_chains(const Trace&, size_t length);

// Totals, a table by kind of instruction, and a table by kernel. null_us: from launch to start of an empty
// kernel on an idle device, 0: not known.
std::string summarize_launches(const Trace&, const Program&, double null_us);

}  // namespace cairn::program
