#include "base/system_memory.h"

#include <gtest/gtest.h>

#include <fstream>

namespace cairn {
namespace {

class SystemMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(::testing::TempDir()) /
            ("system_memory_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(root_);
    write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    600 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  std::filesystem::path root_;
};

TEST_F(SystemMemoryTest, MachineWithoutLimits) {
  EXPECT_EQ(system_memory(root_).total, 1000 * 1024u);
  EXPECT_EQ(system_memory(root_).available, 600 * 1024u);
}

TEST_F(SystemMemoryTest, SmallestEnclosingGroupDecides) {
  write("proc/self/cgroup", "0::/outer/inner\n");
  write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  write("sys/fs/cgroup/outer/memory.max", "409600\n");
  write("sys/fs/cgroup/outer/memory.current", "300000\n");
  write("sys/fs/cgroup/outer/memory.stat", "anon 100\nfile 250000\ninactive_file 100000\n");
  EXPECT_EQ(system_memory(root_).total, 409600u);
  EXPECT_EQ(system_memory(root_).available, 409600u - 200000u);
}

TEST_F(SystemMemoryTest, FullGroupHasNothingLeft) {
  write("proc/self/cgroup", "1:memory:/ignored\n0::/\n");
  write("sys/fs/cgroup/memory.max", "1000\n");
  write("sys/fs/cgroup/memory.current", "2000\n");
  EXPECT_EQ(system_memory(root_).available, 0u);
}

TEST_F(SystemMemoryTest, NothingReadableIsZero) {
  EXPECT_EQ(system_memory(root_ / "absent").total, 0u);
  EXPECT_EQ(system_memory(root_ / "absent").available, 0u);
}

TEST(SystemMemory, ThisMachineHasSome) {
  const auto memory = system_memory();
  EXPECT_GT(memory.available, 0u);
  EXPECT_LE(memory.available, memory.total);
}

}  // namespace
}  // namespace cairn
