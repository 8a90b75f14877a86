#include "backends/cpu/packed_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <set>

#include "base/error.h"

namespace cairn::cpu {
namespace {

namespace fs = std::filesystem;

class PackedFolderTest : public ::testing::Test {
 protected:
  PackedFolderTest() : root_(fs::path(::testing::TempDir()) / fmt::format("packed_folder_{}", getpid())) {
    fs::remove_all(root_);
    folder_.path = root_ / "cairn/packed";
    for (const char* name : {"CAIRN_CACHE", "CAIRN_WEIGHT_CACHE", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      before_[name] = value ? std::optional<std::string>(value) : std::nullopt;
      unsetenv(name);
    }
  }
  ~PackedFolderTest() override {
    fs::remove_all(root_);
    for (const auto& [name, value] : before_) {
      if (value) {
        setenv(name.c_str(), value->c_str(), 1);
      } else {
        unsetenv(name.c_str());
      }
    }
  }

  void add(const std::string& name, size_t bytes, int minutes_ago) {
    fs::create_directories(folder_.path);
    const auto path = folder_.path / name;
    std::ofstream(path) << std::string(bytes, 'x');
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::minutes(minutes_ago));
  }
  std::set<std::string> names() const {
    std::set<std::string> result;
    for (const auto& entry : fs::directory_iterator(folder_.path)) result.insert(entry.path().filename());
    return result;
  }

  fs::path root_;
  PackedFolder folder_;
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(PackedFolderTest, TheLeastRecentlyUsedGoFirst) {
  folder_.most_bytes = 1000;
  add("a.packed", 400, 30);
  add("b.packed", 400, 10);
  add("c.packed", 100, 20);
  add("notes.txt", 5000, 90);  // not ours: neither counted nor removed
  EXPECT_TRUE(make_room(folder_, 100));
  EXPECT_EQ(names(), (std::set<std::string>{"a.packed", "b.packed", "c.packed", "notes.txt"}));
  EXPECT_TRUE(make_room(folder_, 101));
  EXPECT_EQ(names(), (std::set<std::string>{"b.packed", "c.packed", "notes.txt"}));
  EXPECT_TRUE(make_room(folder_, 600));
  EXPECT_EQ(names(), (std::set<std::string>{"b.packed", "notes.txt"}));
  EXPECT_FALSE(make_room(folder_, 1001));
  EXPECT_EQ(names(), (std::set<std::string>{"b.packed", "notes.txt"}));
}

TEST_F(PackedFolderTest, ATenthOfTheDiskIsTheMost) {
  EXPECT_TRUE(make_room(folder_, 1));
  EXPECT_EQ(fs::status(folder_.path).permissions(), fs::perms::owner_all);
  EXPECT_FALSE(make_room(folder_, fs::space(folder_.path).available / 8));
}

TEST_F(PackedFolderTest, WhatADeadWriterLeftGoesAndALivingOnesStays) {
  folder_.most_bytes = 1000;
  add("a.packed.1.0.partial", 10, 0);
  add("b.packed.2.0.partial", 10, 0);
  const int living = open((folder_.path / "b.packed.2.0.partial").c_str(), O_RDWR);
  ASSERT_EQ(flock(living, LOCK_EX), 0);
  EXPECT_TRUE(make_room(folder_, 1));
  close(living);
  EXPECT_EQ(names(), std::set<std::string>{"b.packed.2.0.partial"});
}

TEST_F(PackedFolderTest, NoFolderIsNoReasonToFail) {
  fs::create_directories(root_);
  std::ofstream(root_ / "cairn") << "a file where the folder would be";
  EXPECT_FALSE(make_room(folder_, 1));
}

TEST_F(PackedFolderTest, TheEnvironmentDecides) {
  EXPECT_EQ(PackedFolder::from_environment().path, "");
  setenv("HOME", "/someone", 1);
  EXPECT_EQ(PackedFolder::from_environment().path, "/someone/.cache/cairn/packed");
  setenv("CAIRN_CACHE", "/own", 1);
  EXPECT_EQ(PackedFolder::from_environment().path, "/own/packed");
  setenv("CAIRN_WEIGHT_CACHE", "3", 1);
  EXPECT_EQ(PackedFolder::from_environment().most_bytes, uint64_t{3} << 30);
  setenv("CAIRN_WEIGHT_CACHE", "0", 1);
  EXPECT_EQ(PackedFolder::from_environment().path, "");
  for (const char* bad : {"no", "-1", "1.5", "99999999999", "1 "}) {
    setenv("CAIRN_WEIGHT_CACHE", bad, 1);
    EXPECT_THROW(PackedFolder::from_environment(), Error) << bad;
  }
}

}  // namespace
}  // namespace cairn::cpu
