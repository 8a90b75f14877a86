#include "plan/energy.h"

#include <gtest/gtest.h>

#include <fstream>

namespace cairn::plan {
namespace {

namespace fs = std::filesystem;

class Rapl : public ::testing::Test {
 protected:
  void package(const std::string& folder, const std::string& name, const std::string& uj) {
    const auto at = root / "sys/class/powercap" / folder;
    fs::create_directories(at);
    std::ofstream(at / "name") << name << "\n";
    std::ofstream(at / "energy_uj") << uj << "\n";
    std::ofstream(at / "max_energy_range_uj") << 10'000'000 << "\n";
  }
  void SetUp() override {
    root = fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root);
  }
  void TearDown() override { fs::remove_all(root); }
  fs::path root;
};

TEST_F(Rapl, PackagesAreAddedAndCountersBeginAgain) {
  package("intel-rapl:0", "package-0", "9000000");
  package("intel-rapl:1", "package-1", "100");
  package("intel-rapl:0:0", "core", "5");
  package("intel-rapl:2", "psys", "7");
  std::string why;
  const auto meter = rapl_meter(&why, root);
  ASSERT_TRUE(meter) << why;
  EXPECT_EQ(meter->what(), "RAPL, 2 packages");
  EXPECT_EQ(meter->joules(), 0);
  package("intel-rapl:0", "package-0", "500000");  // past the range of 10 J: 1.5 J
  package("intel-rapl:1", "package-1", "250100");
  package("intel-rapl:2", "psys", "99999");
  EXPECT_DOUBLE_EQ(meter->joules(), 1.75);
  package("intel-rapl:0", "package-0", "600000");
  EXPECT_DOUBLE_EQ(meter->joules(), 1.85);
}

TEST_F(Rapl, SaysWhyThereIsNone) {
  std::string why;
  EXPECT_FALSE(rapl_meter(&why, root));
  EXPECT_NE(why.find("no RAPL counters"), std::string::npos) << why;
  package("intel-rapl:0", "package-0", "");  // as a file that may not be read
  EXPECT_FALSE(rapl_meter(&why, root));
  EXPECT_NE(why.find("root only"), std::string::npos) << why;
}

TEST(Nvml, SaysWhyThereIsNone) {
  std::string why;
  if (!nvml_meter("ffff:ff:1f.0", &why)) {
    EXPECT_FALSE(why.empty());
  }
}

}  // namespace
}  // namespace cairn::plan
