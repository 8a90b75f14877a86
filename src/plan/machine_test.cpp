#include "plan/machine.h"

#include <gtest/gtest.h>

#include <fstream>

namespace cairn::plan {
namespace {

TEST(Machine, ReadsWhatTheSystemStates) {
  const auto root = std::filesystem::path(::testing::TempDir()) / "machine_test";
  std::filesystem::remove_all(root);
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((root / name).parent_path());
    std::ofstream(root / name) << text;
  };
  // Two packages whose core numbers repeat, two threads per core.
  write("proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Example CPU: fast\nphysical id\t: 0\ncore id\t\t: 0\n\n"
        "processor\t: 1\nmodel name\t: Example CPU: fast\nphysical id\t: 0\ncore id\t\t: 0\n\n"
        "processor\t: 2\nmodel name\t: Example CPU: fast\nphysical id\t: 1\ncore id\t\t: 0\n");
  write("proc/meminfo", "MemTotal: 8 kB\nMemAvailable: 4 kB\n");
  const std::string cache = "sys/devices/system/cpu/cpu0/cache/";
  write(cache + "index0/level", "1\n");
  write(cache + "index0/type", "Data\n");
  write(cache + "index0/size", "48K\n");
  write(cache + "index0/shared_cpu_list", "0\n");
  write(cache + "index1/level", "3\n");
  write(cache + "index1/type", "Unified\n");
  write(cache + "index1/size", "32M\n");
  write(cache + "index1/shared_cpu_list", "0-3,8-11\n");

  const Machine machine = describe_machine(root);
  EXPECT_EQ(machine.cpu, "Example CPU: fast");
  EXPECT_EQ(machine.physical_cores, 2);
  EXPECT_GE(machine.logical_cores, 1);
  ASSERT_EQ(machine.caches.size(), 2u);
  EXPECT_EQ(machine.caches[0].bytes, 48u << 10);
  EXPECT_EQ(machine.caches[0].shared_by, 1);
  EXPECT_EQ(machine.caches[1].level, 3);
  EXPECT_EQ(machine.caches[1].bytes, 32u << 20);
  EXPECT_EQ(machine.caches[1].shared_by, 8);
  EXPECT_EQ(machine.memory.total, 8192u);
  std::filesystem::remove_all(root);
}

TEST(Machine, MissingFactsAreLeftOut) {
  const Machine machine = describe_machine("/nonexistent");
  EXPECT_EQ(machine.cpu, "");
  EXPECT_EQ(machine.physical_cores, 0);
  EXPECT_TRUE(machine.caches.empty());
}

TEST(Machine, TestSizeIsPastTheCachesAndWithinMemory) {
  Machine machine;
  machine.memory.available = uint64_t{64} << 30;
  machine.caches = {{3, "Unified", uint64_t{96} << 20, 8}};
  EXPECT_EQ(bandwidth_test_bytes(machine), size_t{384} << 20);
  machine.memory.available = uint64_t{400} << 20;
  EXPECT_EQ(bandwidth_test_bytes(machine), size_t{100} << 20);
}

// Checks that all of it is read, on every level of instructions; how fast is for a benchmark to say.
TEST(Machine, BandwidthReadsEveryByteAtEveryLevel) {
  const Isa before = active_isa();
  ThreadPool pool(2);
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_active_isa(isa);
    const Bandwidth bandwidth = measure_read_bandwidth(pool, (size_t{1} << 20) + 4096 * 3, 3);
    EXPECT_GT(bandwidth.median_gb_per_s, 0) << to_string(isa);
    EXPECT_GE(bandwidth.best_gb_per_s, bandwidth.median_gb_per_s);
    EXPECT_EQ(bandwidth.bytes, (size_t{1} << 20) + 4096 * 3);
    EXPECT_EQ(bandwidth.threads, 2);
  }
  set_active_isa(before);
}

}  // namespace
}  // namespace cairn::plan
