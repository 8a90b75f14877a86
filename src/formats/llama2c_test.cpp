#include "formats/llama2c.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;
using testing::Bytes;
using testing::message_of;
using testing::TemporaryFolder;

// dim 4, hidden 6, 1 layer, 2 heads, 1 KV head, vocabulary 3, context 5.
constexpr int32_t kFields[] = {4, 6, 1, 2, 1, 3, 5};
constexpr size_t kNorms = 4 * 3, kMatrices = 4 * 4 * 2 + 2 * 4 * 2 + 4 * 6 * 3, kEmbedding = 3 * 4,
                 kAngles = 5 * 2;

Bytes fields(const std::vector<int32_t>& values) {
  Bytes bytes;
  for (const int32_t value : values) bytes.put(value);
  return bytes;
}

std::vector<int32_t> good_fields() { return {std::begin(kFields), std::end(kFields)}; }

std::string legacy(std::vector<int32_t> values, bool shared = true) {
  if (!shared) values[5] = -values[5];
  Bytes bytes = fields(values);
  const size_t count = kNorms + kMatrices + kEmbedding * (shared ? 1 : 2) + kAngles;
  for (size_t i = 0; i < count; ++i) bytes.put(float(i));
  return bytes.string();
}

std::string int8_groups(int32_t group) {
  Bytes bytes;
  bytes.put(uint32_t{0x616b3432})
      .put(int32_t{2})
      .raw(fields(good_fields()).string())
      .put(uint8_t{0})
      .put(group);
  bytes.zeros(256 - bytes.string().size());
  for (size_t i = 0; i < kNorms; ++i) bytes.put(float(i));
  const auto matrix = [&](size_t count) {
    for (size_t i = 0; i < count; ++i) bytes.put(int8_t(int(i % 255) - 127));
    for (size_t i = 0; i < count / size_t(group); ++i) bytes.put(float(i + 1));
  };
  for (const size_t count : {12, 16, 8, 8, 16, 24, 24, 24, 12}) matrix(count);
  return bytes.string();
}

Checkpoint open(const std::string& bytes) {
  static TemporaryFolder folder;
  return open_llama2c(folder.write("m.bin", bytes));
}

AssertionResult refused(const std::string& bytes, std::initializer_list<std::string_view> parts) {
  const std::string message = message_of([&] { open(bytes); });
  if (message.empty()) return AssertionFailure() << "accepted";
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return AssertionFailure() << "'" << part << "' is not in: " << message;
  return AssertionSuccess();
}

float value(const Tensor& tensor, size_t i) {
  float result = 0;
  std::memcpy(&result, tensor.bytes.data() + 4 * i, 4);
  return result;
}

TEST(Llama2c, LegacyOrderAndClassifier) {
  const Checkpoint shared = open(legacy(good_fields()));
  EXPECT_EQ((*shared.config)["cairn_rope_pairing"], "adjacent");
  EXPECT_EQ((*shared.config)["architectures"][0], "LlamaForCausalLM");
  EXPECT_EQ(shared.find("lm_head.weight"), nullptr);
  EXPECT_EQ(value(shared.require("model.layers.0.input_layernorm.weight"), 0), 12.f);
  EXPECT_EQ(value(shared.require("model.layers.0.self_attn.q_proj.weight"), 0), 16.f);
  EXPECT_EQ(value(shared.require("model.layers.0.post_attention_layernorm.weight"), 0), 64.f);
  EXPECT_EQ(value(shared.require("model.norm.weight"), 0), 140.f);
  const Checkpoint own = open(legacy(good_fields(), false));
  EXPECT_EQ((*own.config)["tie_word_embeddings"], false);
  EXPECT_EQ(value(own.require("lm_head.weight"), 0), 154.f);
}

TEST(Llama2c, Int8GroupsAreDecoded) {
  const Checkpoint checkpoint = open(int8_groups(4));
  const Tensor& embedding = checkpoint.require("model.embed_tokens.weight");
  EXPECT_EQ(value(embedding, 0), -127.f);
  EXPECT_EQ(value(embedding, 11), 3.f * (11 - 127));
  EXPECT_EQ(checkpoint.owned.size(), 9u);
  const Checkpoint copy = checkpoint;  // copies share the decoded weights
  EXPECT_EQ(copy.require("lm_head.weight").bytes.data(), checkpoint.require("lm_head.weight").bytes.data());
  EXPECT_TRUE(refused(int8_groups(3), {"no multiple of the group size 3"}));
}

TEST(Llama2c, HostileHeadersAreRefused) {
  const char* const names[] = {"dim",        "hidden_dim", "n_layers",   "n_heads",
                               "n_kv_heads", "vocab_size", "max_seq_len"};
  for (size_t i = 0; i < 7; ++i)
    for (const int32_t bad :
         {0, -1, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()}) {
      if (i == 5 && bad == -1) continue;  // a vocabulary of one with its own classifier
      auto values = good_fields();
      values[i] = bad;
      EXPECT_TRUE(refused(legacy(values), {"m.bin", names[i], std::to_string(bad)}))
          << names[i] << " " << bad;
    }
  EXPECT_TRUE(refused(legacy({4, 6, 1, 3, 1, 3, 5}), {"dim 4", "n_heads 3"}));
  EXPECT_TRUE(refused(legacy({4, 6, 1, 4, 3, 3, 5}), {"n_heads 4", "n_kv_heads 3"}));
  EXPECT_TRUE(refused(legacy({4, 6, 1, 4, 1, 3, 5}), {"head size 1 is odd"}));
  EXPECT_TRUE(refused(legacy({1 << 24, 1 << 24, 4096, 2, 1, 1 << 24, 5}), {"cut off"}));
  EXPECT_TRUE(refused(legacy(good_fields()) + "x", {"end at byte", "the file has"}));
  EXPECT_TRUE(refused(Bytes().put(uint32_t{0x616b3432}).put(int32_t{3}).zeros(300).string(), {"version 3"}));
  EXPECT_TRUE(
      refused(Bytes().put(uint32_t{0x616b3432}).put(int32_t{1}).zeros(100).string(), {"its header 256"}));
  EXPECT_TRUE(refused(int8_groups(4).replace(37, 4, std::string(4, '\0')), {"group size is 0"}));
}

TEST(Llama2c, TruncationsAreRefused) {
  for (const std::string& whole : {legacy(good_fields()), int8_groups(4)})
    for (size_t size = 0; size < whole.size(); size += 7)
      EXPECT_TRUE(refused(whole.substr(0, size), {"m.bin"})) << size;
}

}  // namespace
}  // namespace cairn::formats
