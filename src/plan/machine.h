// What this machine is: the facts that the system states, and the rates that only a measurement gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/read_bandwidth.h"
#include "base/system_memory.h"
#include "base/thread_pool.h"

namespace cairn::plan {

struct Cache {
  int level = 0;
  std::string type;    // "Data", "Instruction", "Unified"
  uint64_t bytes = 0;  // of one instance
  int shared_by = 1;   // logical cores
};

struct Machine {
  std::string cpu;         // "AMD Ryzen 9 ..."; empty when the system does not say
  int logical_cores = 0;   // that this process may use
  int physical_cores = 0;  // of the machine; 0 when unknown
  Isa isa = Isa::scalar;
  std::vector<Cache> caches;  // of core 0
  SystemMemory memory;
};

Machine describe_machine(const std::filesystem::path& root = "/");  // root: for tests

using cairn::Bandwidth;
using cairn::measure_read_bandwidth;

// An amount for measure_read_bandwidth: past the caches, within a quarter of what is available.
size_t bandwidth_test_bytes(const Machine&);

}  // namespace cairn::plan
