#include "plan/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

#include "base/aligned_buffer.h"

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

// Four sums hide the latency of the additions; the loads are what is measured.
template <typename Vector>
[[gnu::always_inline]] inline uint64_t sum_of(const std::byte* data, size_t bytes) {
  Vector sums[4] = {};
  const auto* at = reinterpret_cast<const Vector*>(data);
  const size_t steps = bytes / (4 * sizeof(Vector));
  for (size_t i = 0; i < steps; ++i, at += 4)
    for (int lane = 0; lane < 4; ++lane) sums[lane] += at[lane];
  const Vector total = sums[0] + sums[1] + sums[2] + sums[3];
  uint64_t sum = 0;
  for (size_t i = 0; i < sizeof(Vector) / sizeof(uint64_t); ++i) sum += total[i];
  return sum;
}

using Words2 [[gnu::vector_size(16), gnu::may_alias]] = uint64_t;

uint64_t sum_baseline(const std::byte* data, size_t bytes) { return sum_of<Words2>(data, bytes); }

#if defined(__x86_64__)
using Words4 [[gnu::vector_size(32), gnu::may_alias]] = uint64_t;
using Words8 [[gnu::vector_size(64), gnu::may_alias]] = uint64_t;
[[gnu::target("avx2")]] uint64_t sum_avx2(const std::byte* data, size_t bytes) {
  return sum_of<Words4>(data, bytes);
}
[[gnu::target("avx512f")]] uint64_t sum_avx512(const std::byte* data, size_t bytes) {
  return sum_of<Words8>(data, bytes);
}
#endif

auto sum_function() {
#if defined(__x86_64__)
  if (active_isa() >= Isa::avx512) return sum_avx512;
  if (active_isa() >= Isa::avx2) return sum_avx2;
#endif
  return sum_baseline;
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

Bandwidth measure_read_bandwidth(ThreadPool& pool, size_t bytes, int repetitions) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kGranule = 4096;
  bytes = std::max<size_t>(bytes / kGranule * kGranule, kGranule);
  AlignedBuffer buffer(bytes);
  // Each thread touches the pages that it will read, so that they lie near it; zero pages would all be one
  // page.
  pool.split(int64_t(bytes), kGranule, [&](Range part) {
    std::fill(buffer.data() + part.begin, buffer.data() + part.end, std::byte{1});
  });
  const auto sum = sum_function();
  std::atomic<uint64_t> total{0};
  std::vector<double> rates;
  for (int repetition = 0; repetition < repetitions + 1; ++repetition) {
    const auto start = Clock::now();
    pool.split(int64_t(bytes), kGranule, [&](Range part) {
      total += sum(buffer.data() + part.begin, size_t(part.size()));  // used: the loads cannot be dropped
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (repetition > 0) rates.push_back(double(bytes) / seconds / 1e9);  // the first one warms up
  }
  std::sort(rates.begin(), rates.end());
  // Every word is 0x0101...: a wrong sum means that not everything was read.
  if (total != uint64_t(repetitions + 1) * (bytes / 8) * 0x0101010101010101u)
    throw std::logic_error("the bandwidth measurement did not read every byte once");
  return {rates[rates.size() / 2], rates.back(), bytes, pool.size(), repetitions};
}

size_t bandwidth_test_bytes(const Machine& machine) {
  uint64_t last = 0;
  for (const auto& cache : machine.caches) last = std::max(last, cache.bytes);
  // A virtual machine may state the cache of a whole socket of which it gets a slice.
  const uint64_t wanted = std::clamp<uint64_t>(4 * last, uint64_t{256} << 20, uint64_t{1} << 30);
  return size_t(std::max<uint64_t>(std::min(wanted, machine.memory.available / 4), uint64_t{16} << 20));
}

}  // namespace cairn::plan
