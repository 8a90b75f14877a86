#include "model_path.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/error.h"

namespace cairn::app {
namespace {

class ModelPathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("model_path_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override {
    std::filesystem::remove_all(folder_);
    unsetenv("CAIRN_MODELS");
  }
  std::string failure(const std::string& argument) {
    try {
      return "no error: " + resolve_model(argument).string();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::not_found);
      return error.what();
    }
  }
  std::filesystem::path folder_;
};

TEST_F(ModelPathTest, WhatExistsIsTaken) {
  EXPECT_EQ(resolve_model(folder_.string()), folder_);
  std::ofstream(folder_ / "x.gguf") << "x";
  EXPECT_EQ(resolve_model((folder_ / "x.gguf").string()), folder_ / "x.gguf");
}

TEST_F(ModelPathTest, MisspeltFileNamesTheNearest) {
  std::ofstream(folder_ / "model-q4_k_m.gguf") << "x";
  const auto wrong = (folder_ / "model-q4_k.gguf").string();
  EXPECT_EQ(failure(wrong), "there is no file or folder '" + wrong + "'\nhint: did you mean " +
                                (folder_ / "model-q4_k_m.gguf").string() + "?");
  EXPECT_EQ(failure((folder_ / "other").string()),
            "there is no file or folder '" + (folder_ / "other").string() + "'");
  EXPECT_EQ(failure((folder_ / "model-q4_k_m.gguf/inside").string()),
            "there is no file or folder '" + (folder_ / "model-q4_k_m.gguf/inside").string() + "'");
}

TEST_F(ModelPathTest, HubNameSaysHowToPull) {
  EXPECT_NE(failure("some-org/Some-Model.v1").find("`cairn pull some-org/Some-Model.v1`"), std::string::npos);
}

TEST_F(ModelPathTest, PulledModelIsFoundByItsName) {
  const std::string commit(40, 'a');
  const auto snapshot = folder_ / "models--org--name/snapshots" / commit;
  std::filesystem::create_directories(snapshot);
  std::filesystem::create_directories(folder_ / "models--org--name/refs");
  std::ofstream(folder_ / "models--org--name/refs/main") << commit;
  std::ofstream(snapshot / "model-Q8_0.gguf") << "x";
  setenv("HF_HUB_CACHE", folder_.c_str(), 1);
  EXPECT_EQ(resolve_model("org/name:model-Q8_0.gguf"), snapshot / "model-Q8_0.gguf");
  EXPECT_EQ(resolve_model("org/name"), snapshot / "model-Q8_0.gguf");
  EXPECT_NE(failure("org/other").find("no model of that name was pulled"), std::string::npos);
  unsetenv("HF_HUB_CACHE");
}

TEST_F(ModelPathTest, ShippedModelComesFromTheNamedFolder) {
  setenv("CAIRN_MODELS", folder_.c_str(), 1);
  EXPECT_EQ(shipped_model_folders().front(), folder_);
  std::filesystem::create_directories(folder_ / "cairn-stories");
  std::ofstream(folder_ / "cairn-stories/cairn-stories-q8_0.gguf") << "x";
  EXPECT_EQ(resolve_model(""), folder_ / "cairn-stories/cairn-stories-q8_0.gguf");
}

}  // namespace
}  // namespace cairn::app
