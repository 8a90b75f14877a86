#include "base/system_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

namespace cairn {
namespace {

std::optional<uint64_t> first_number(const std::filesystem::path& path) {
  std::ifstream in(path);
  uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;  // absent, or "max"
}

// The value after `key` in a file of "key value" or "key: value kB" lines.
std::optional<uint64_t> field(const std::filesystem::path& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word;
    uint64_t value = 0;
    if (words >> word >> value && word == key) return value;
  }
  return std::nullopt;
}

// "0::/user.slice/x" names the cgroup v2 folder of this process.
std::string cgroup_of(const std::filesystem::path& root) {
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("0::/", 0) == 0) return line.substr(4);
  return {};
}

}  // namespace

SystemMemory system_memory(const std::filesystem::path& root) {
  SystemMemory memory;
  memory.total = field(root / "proc/meminfo", "MemTotal:").value_or(0) * 1024;
  memory.available = field(root / "proc/meminfo", "MemAvailable:").value_or(0) * 1024;
  const auto top = root / "sys/fs/cgroup";
  for (auto folder = top / cgroup_of(root);; folder = folder.parent_path()) {
    if (const auto limit = first_number(folder / "memory.max")) {
      const uint64_t used = first_number(folder / "memory.current").value_or(0);
      // Cold page cache is counted as used, but given back on demand.
      const uint64_t cold = field(folder / "memory.stat", "inactive_file").value_or(0);
      const uint64_t held = used > cold ? used - cold : 0;
      memory.total = std::min(memory.total, *limit);
      memory.available = std::min(memory.available, *limit > held ? *limit - held : 0);
    }
    if (folder == top || folder == folder.parent_path()) break;
  }
  return memory;
}

}  // namespace cairn
