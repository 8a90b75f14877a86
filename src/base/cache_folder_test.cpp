#include "base/cache_folder.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace cairn {
namespace {

TEST(CacheFolder, NamesItsVariablesInOrder) {
  setenv("CAIRN_CACHE", "/here", 1);
  setenv("XDG_CACHE_HOME", "/there", 1);
  EXPECT_EQ(cache_folder(), "/here");
  unsetenv("CAIRN_CACHE");
  EXPECT_EQ(cache_folder(), "/there/cairn");
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(cache_folder().filename(), "cairn");
}

TEST(CacheFolder, WritesAllOrNothing) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "cache_folder_test";
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(write_cache_file(folder / "a" / "b", "twice"));
  ASSERT_TRUE(write_cache_file(folder / "a" / "b", "once"));
  std::ifstream file(folder / "a" / "b");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "once");
  EXPECT_FALSE(write_cache_file(folder / "a" / "b" / "c", "a file is not a folder"));
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    files += entry.is_regular_file();
  EXPECT_EQ(files, 1u);
}

}  // namespace
}  // namespace cairn
