#include "plan/machine.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

namespace cairn::plan {
namespace {

std::string first_line(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// "48K", "2048K", "480M"
uint64_t cache_bytes(const std::string& text) {
  std::istringstream in(text);
  uint64_t value = 0;
  char unit = 0;
  in >> value >> unit;
  switch (unit) {
    case 'K': return value << 10;
    case 'M': return value << 20;
    case 'G': return value << 30;
    default: return value;
  }
}

// How many numbers "0-3,8-11" lists.
int list_size(const std::string& text) {
  int count = 0;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    int begin = 0, end = 0;
    char dash = 0;
    std::istringstream range(part);
    if (!(range >> begin)) continue;
    count += range >> dash >> end && end >= begin ? end - begin + 1 : 1;
  }
  return std::max(count, 1);
}

std::vector<Cache> caches_of(const std::filesystem::path& folder) {
  std::vector<Cache> caches;
  for (int index = 0; index < 16; ++index) {
    const auto one = folder / ("index" + std::to_string(index));
    const auto level = first_line(one / "level");
    if (level.empty()) break;
    caches.push_back({int(cache_bytes(level)), first_line(one / "type"),
                      cache_bytes(first_line(one / "size")), list_size(first_line(one / "shared_cpu_list"))});
  }
  return caches;
}

void read_cpuinfo(const std::filesystem::path& path, Machine& machine) {
  std::ifstream in(path);
  std::set<std::pair<std::string, std::string>> cores;  // (package, core)
  std::string package;
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    const std::string value = start == line.npos ? "" : line.substr(start);
    if (key == "model name" && machine.cpu.empty()) machine.cpu = value;
    if (key == "physical id") package = value;
    if (key == "core id") cores.insert({package, value});
  }
  machine.physical_cores = int(cores.size());
}

}  // namespace

Machine describe_machine(const std::filesystem::path& root) {
  Machine machine;
  read_cpuinfo(root / "proc/cpuinfo", machine);
  machine.logical_cores = ThreadPool::available_cores();
  machine.isa = active_isa();
  machine.caches = caches_of(root / "sys/devices/system/cpu/cpu0/cache");
  machine.memory = system_memory(root);
  return machine;
}

size_t bandwidth_test_bytes(const Machine& machine) {
  uint64_t last = 0;
  for (const auto& cache : machine.caches) last = std::max(last, cache.bytes);
  // A virtual machine may state the cache of a whole socket of which it gets a slice.
  const uint64_t wanted = std::clamp<uint64_t>(4 * last, uint64_t{256} << 20, uint64_t{1} << 30);
  return size_t(std::max<uint64_t>(std::min(wanted, machine.memory.available / 4), uint64_t{16} << 20));
}

}  // namespace cairn::plan
