#include "formats/llama2c.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "formats/checkpoint.h"

namespace cairn::formats {
namespace {

const std::filesystem::path kFolder = "weights/stories260k";

Checkpoint open(const char* file) { return open_checkpoint(testing::data_folder() / kFolder / file); }

std::vector<float> values(const Tensor& tensor) {
  std::vector<float> result(tensor.bytes.size() / 4);
  std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
  return result;
}

TEST(Llama2cData, LegacyAndVersion1HoldTheSameWeights) {
  CAIRN_NEED_DATA(kFolder / "checkpoint_legacy.bin");
  CAIRN_NEED_DATA(kFolder / "checkpoint_v1.bin");
  const Checkpoint legacy = open("checkpoint_legacy.bin"), version1 = open("checkpoint_v1.bin");
  EXPECT_EQ(*legacy.config, *version1.config);
  EXPECT_EQ((*legacy.config)["num_key_value_heads"], 4);
  EXPECT_EQ((*legacy.config)["vocab_size"], 512);
  EXPECT_EQ((*legacy.config)["tie_word_embeddings"], true);
  EXPECT_EQ(legacy.tensors.size(), 5u * 9 + 2);
  ASSERT_EQ(legacy.tensors.size(), version1.tensors.size());
  for (const Tensor& tensor : legacy.tensors) {
    const Tensor& other = version1.require(tensor.name);
    EXPECT_EQ(tensor.shape, other.shape) << tensor.name;
    EXPECT_EQ(values(tensor), values(other)) << tensor.name;
  }
  EXPECT_EQ(legacy.require("model.layers.4.self_attn.k_proj.weight").shape, (std::vector<int64_t>{32, 64}));
  EXPECT_EQ(legacy.require("model.layers.0.mlp.down_proj.weight").shape, (std::vector<int64_t>{64, 172}));
}

TEST(Llama2cData, Int8GroupsDecodeToWithinHalfAStep) {
  CAIRN_NEED_DATA(kFolder / "checkpoint_v1.bin");
  CAIRN_NEED_DATA(kFolder / "stories260K-q8.bin");
  const Checkpoint plain = open("checkpoint_v1.bin"), int8 = open("stories260K-q8.bin");
  EXPECT_EQ(*plain.config, *int8.config);
  for (const Tensor& tensor : plain.tensors) {
    const auto want = values(tensor), got = values(int8.require(tensor.name));
    ASSERT_EQ(want.size(), got.size()) << tensor.name;
    if (tensor.shape.size() == 1) {
      EXPECT_EQ(want, got) << tensor.name;
      continue;
    }
    // Groups of 8 with scale max|w| / 127, rounded to nearest: the error is at most half a scale.
    for (size_t group = 0; group < want.size(); group += 8) {
      float largest = 0;
      for (size_t i = group; i < group + 8; ++i) largest = std::max(largest, std::abs(want[i]));
      for (size_t i = group; i < group + 8; ++i)
        ASSERT_NEAR(want[i], got[i], largest / 127 * 0.5001f) << tensor.name << " at " << i;
    }
  }
}

}  // namespace
}  // namespace cairn::formats
