#include "models/fingerprint.h"

#include <gtest/gtest.h>

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <set>

namespace cairn::models {
namespace {

const std::filesystem::path kTestdata = std::filesystem::path(CAIRN_SOURCE_DIR) / "src/models/testdata";

TEST(Fingerprint, TellsModelsApartAndKnowsACopy) {
  std::set<std::string> names;
  for (const char* name : {"gemma2", "gemma2.gguf", "gemma3", "qwen2", "llama-mha", "llama-f16"})
    EXPECT_TRUE(names.insert(fingerprint(open_model(kTestdata / name))).second) << name;
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("cairn-fingerprint-{}", getpid());
  std::filesystem::copy(kTestdata / "qwen2", folder);
  EXPECT_TRUE(names.contains(fingerprint(open_model(folder))));
  // One more training step: a weight somewhere has changed.
  const auto file = folder / "model.safetensors";
  ASSERT_TRUE(std::filesystem::exists(file));
  {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(-1, std::ios::end);
    f.put('\x11');
  }
  EXPECT_FALSE(names.contains(fingerprint(open_model(folder))));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cairn::models
