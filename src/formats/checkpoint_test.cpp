#include "formats/checkpoint.h"

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
using testing::GgufParts;
using testing::kSmallHeader;
using testing::message_of;
using testing::safetensors_bytes;
using testing::small_gguf;
using testing::TemporaryFolder;

constexpr std::string_view kConfig = R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64})";

AssertionResult refused(const std::filesystem::path& path, std::initializer_list<std::string_view> parts) {
  const std::string message = message_of([&] { open_checkpoint(path); });
  if (message.empty()) return AssertionFailure() << "accepted";
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return AssertionFailure() << "'" << part << "' is not in: " << message;
  return AssertionSuccess();
}

TEST(Checkpoint, OpensAFolderWithGenerationConfig) {
  TemporaryFolder folder;
  folder.write("config.json", kConfig);
  folder.write("generation_config.json", R"({"eos_token_id": [1, 2]})");
  folder.write("model.safetensors", safetensors_bytes(kSmallHeader, 32));
  const Checkpoint checkpoint = open_checkpoint(folder.path());
  EXPECT_EQ(checkpoint.format, Format::safetensors);
  EXPECT_EQ((*checkpoint.config)["hidden_size"], 64);
  EXPECT_EQ((*checkpoint.config)["generation_config"]["eos_token_id"][1], 2);
  EXPECT_EQ(checkpoint.require("b").codec, codecs::CodecId::f16);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  const Checkpoint file = open_checkpoint(folder.path() / "model.safetensors");
  EXPECT_EQ(file.tensors.size(), 2u);
}

TEST(Checkpoint, ConfigErrorsNameTheFile) {
  TemporaryFolder folder;
  folder.write("model.safetensors", safetensors_bytes(kSmallHeader, 32));
  EXPECT_TRUE(refused(folder.path(), {"config.json is missing"}));
  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {"", "not valid JSON"},
           {"{", "not valid JSON"},
           {"[]", "must be a JSON object"},
           {"{}", "neither 'architectures' nor 'model_type'"},
           {R"({"architectures": []})", "neither 'architectures'"},
           {R"({"architectures": "Llama"})", "'architectures' is \"Llama\"; it must be an array"},
           {R"({"architectures": [7]})", "'architectures[0]' is 7; it must be a string"},
           {R"({"model_type": 3})", "'model_type' is 3"},
           {R"({"a": NaN})", "not valid JSON"},
           {R"({"a": 1, "a": 2})", "'a' appears twice"},
           {"{\"a\": " + std::string(100000, '['), "nested deeper than 100"}}) {
    folder.write("config.json", text);
    EXPECT_TRUE(refused(folder.path(), {"config.json", part})) << text.substr(0, 50);
  }
  folder.write("config.json", kConfig);
  folder.write("generation_config.json", "[]");
  EXPECT_TRUE(refused(folder.path(), {"generation_config.json", "must be a JSON object"}));
}

// "auto_map" asks a Python loader to run code of the model; nothing here reads it.
TEST(Checkpoint, CodeInAModelFolderIsIgnored) {
  TemporaryFolder folder;
  folder.write("config.json", R"({"architectures": ["X"], "auto_map": {"AutoConfig": "evil--x.C"}})");
  folder.write("modeling_x.py", "import os; os.system('touch ran')");
  folder.write("pytorch_model.bin", Bytes().raw("\x80\x02").zeros(10).string());
  folder.write("model.safetensors", safetensors_bytes(kSmallHeader, 32));
  EXPECT_EQ(open_checkpoint(folder.path()).tensors.size(), 2u);
}

TEST(Checkpoint, PicklesAreRefused) {
  TemporaryFolder folder;
  folder.write("config.json", kConfig);
  for (const auto& [name, magic] : std::vector<std::pair<std::string, std::string>>{
           {"pytorch_model.bin", "PK\x03\x04"}, {"old.bin", "\x80\x02"}, {"a.pt", "x"}, {"b.pth", "PK"}}) {
    const auto path = folder.write(name, magic + "rest");
    EXPECT_TRUE(refused(path, {name, "pickle", "runs code"}));
    EXPECT_TRUE(refused(folder.path(), {name, "pickle"}));
    std::filesystem::remove(path);
  }
}

TEST(Checkpoint, WhatIsNoModelIsNamed) {
  TemporaryFolder folder;
  EXPECT_TRUE(refused(folder.path() / "absent", {"absent does not exist"}));
  EXPECT_TRUE(refused(folder.path(), {"holds no model"}));
  EXPECT_TRUE(refused(folder.write("x.txt", "hello"), {"x.txt is no model file"}));
  EXPECT_TRUE(refused(folder.write("x.bin", "hello"), {"x.bin: not a llama2.c checkpoint", "5 bytes"}));
  EXPECT_TRUE(refused(folder.write("x.gguf", ""), {"x.gguf", "does not begin with"}));
}

TEST(Checkpoint, MissingTensorsNameTheNearest) {
  TemporaryFolder folder;
  const Checkpoint checkpoint = open_checkpoint(folder.write("m.gguf", small_gguf().bytes()));
  const std::string message = message_of([&] { checkpoint.require("token_emb.weight"); });
  EXPECT_NE(message.find("'token_emb.weight' is missing among its 2"), std::string::npos) << message;
  EXPECT_NE(message.find("'token_embd.weight'"), std::string::npos) << message;
}

TEST(Checkpoint, GgufNeedsAnArchitecture) {
  TemporaryFolder folder;
  GgufParts parts = small_gguf();
  parts.pairs.erase(parts.pairs.begin());
  EXPECT_TRUE(
      refused(folder.write("m.gguf", parts.bytes()), {"m.gguf", "'general.architecture' is missing"}));
  parts.pairs.push_back(GgufParts::pair("general.architecture", GgufType::u32, uint32_t{7}));
  EXPECT_TRUE(
      refused(folder.write("m.gguf", parts.bytes()), {"'general.architecture' is 7; it must be a string"}));
  parts.pairs.back() = GgufParts::pair("general.architecture", "");
  EXPECT_TRUE(refused(folder.write("m.gguf", parts.bytes()), {"is empty"}));
}

// Three shards; the metadata is in the first.
class GgufShards : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int shard = 1; shard <= 3; ++shard) write(shard, shard - 1, 3, 3);
  }
  std::filesystem::path path(int shard) const {
    return folder_.path() / ("m-0000" + std::to_string(shard) + "-of-00003.gguf");
  }
  void write(int shard, uint16_t number, uint16_t count, int32_t tensors, const char* tensor = nullptr) {
    GgufParts parts;
    if (shard == 1) parts.pairs.push_back(GgufParts::pair("general.architecture", "llama"));
    parts.pairs.push_back(GgufParts::pair("split.no", GgufType::u16, number));
    parts.pairs.push_back(GgufParts::pair("split.count", GgufType::u16, count));
    parts.pairs.push_back(GgufParts::pair("split.tensors.count", GgufType::i32, tensors));
    parts.tensors = {GgufParts::tensor(tensor ? tensor : "t" + std::to_string(shard), {8}, 0, 0)};
    parts.data = std::string(32, char('0' + shard));
    folder_.write(path(shard).filename(), parts.bytes());
  }
  TemporaryFolder folder_;
};

TEST_F(GgufShards, AnyShardOpensAll) {
  for (int shard = 1; shard <= 3; ++shard) {
    const Checkpoint checkpoint = open_checkpoint(path(shard));
    EXPECT_EQ(checkpoint.files.size(), 3u);
    EXPECT_EQ((*checkpoint.config)["general.architecture"], "llama");
    EXPECT_EQ(checkpoint.require("t2").file, 1);
    EXPECT_EQ(char(checkpoint.require("t3").bytes[0]), '3');
  }
  EXPECT_EQ(open_checkpoint(folder_.path()).tensors.size(), 3u);  // the folder holds one model
}

TEST_F(GgufShards, AMissingShardIsNamed) {
  std::filesystem::remove(path(2));
  EXPECT_TRUE(refused(path(1), {"m-00002-of-00003.gguf is missing", "3 files"}));
  std::filesystem::remove(path(1));
  EXPECT_TRUE(refused(path(3), {"m-00001-of-00003.gguf is missing"}));
}

TEST_F(GgufShards, ShardsThatDisagreeAreRefused) {
  write(2, 0, 3, 3);
  EXPECT_TRUE(refused(path(1), {"m-00002-of-00003.gguf", "'split.no' is 0", "shard 1"}));
  write(2, 1, 4, 3);
  EXPECT_TRUE(refused(path(1), {"m-00002-of-00003.gguf", "'split.count' is 4"}));
  write(2, 1, 3, 3, "t1");
  EXPECT_TRUE(refused(path(1), {"m-00002-of-00003.gguf", "'t1' is already in", "m-00001-of-00003.gguf"}));
  write(2, 1, 3, 3);
  write(1, 0, 3, 7);
  EXPECT_TRUE(refused(path(1), {"'split.tensors.count' is 7", "3 tensors"}));
  std::filesystem::rename(path(1), folder_.path() / "m-00004-of-00003.gguf");
  EXPECT_TRUE(refused(folder_.path() / "m-00004-of-00003.gguf", {"shard 4 of 3"}));
  std::filesystem::rename(folder_.path() / "m-00004-of-00003.gguf", folder_.path() / "renamed.gguf");
  EXPECT_TRUE(refused(folder_.path() / "renamed.gguf", {"renamed.gguf is one of 3 shards"}));
}

}  // namespace
}  // namespace cairn::formats
