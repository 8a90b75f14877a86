// How much memory this process may count on: the machine's, or what its container was given.
#pragma once

#include <cstdint>
#include <filesystem>

namespace cairn {

struct SystemMemory {
  uint64_t total = 0;      // bytes; the smallest of the machine's and every enclosing cgroup's limit
  uint64_t available = 0;  // bytes that can be taken without swapping; page cache counts as available
};

// Reads /proc/meminfo and the cgroup v2 limits. Both are 0 where neither can be read.
SystemMemory system_memory(const std::filesystem::path& root = "/");  // root: for tests

}  // namespace cairn
