#include "inspect.h"

#include <gtest/gtest.h>

#include "formats/testing.h"

namespace cairn::app {
namespace {

using formats::testing::GgufParts;
using formats::testing::TemporaryFolder;

TEST(Inspect, CountsTensorsByCodec) {
  const TemporaryFolder folder;
  const auto path = folder.write("m.gguf", formats::testing::small_gguf().bytes());
  const auto json = inspection_json(formats::open_checkpoint(path));
  EXPECT_EQ(json["format"], "GGUF");
  EXPECT_EQ(json["parameters"], 32 + 128);
  EXPECT_EQ(json["tensor_bytes"], 32 * 4 + 4 * 34);
  ASSERT_EQ(json["codecs"].size(), 2u);
  EXPECT_EQ(json["codecs"][0]["name"], "q8_0");  // 136 bytes come before 128
  EXPECT_EQ(json["codecs"][0]["bits_per_weight"], 8.5);
  EXPECT_EQ(json["codecs"][1]["name"], "f32");
  EXPECT_EQ(json["tensors"][1]["shape"], (std::vector<int>{2, 64}));
  EXPECT_EQ(json["config"]["general.architecture"], "llama");
  EXPECT_EQ(json["files"][0]["bytes"], std::filesystem::file_size(path));
}

TEST(Inspect, TextHasEveryTensorWhenAsked) {
  const TemporaryFolder folder;
  const auto checkpoint =
      formats::open_checkpoint(folder.write("m.gguf", formats::testing::small_gguf().bytes()));
  EXPECT_EQ(inspection_text(checkpoint, false).find("token_embd.weight"), std::string::npos);
  const auto text = inspection_text(checkpoint, true);
  EXPECT_NE(text.find("token_embd.weight  f32"), std::string::npos) << text;
  EXPECT_NE(text.find("[2, 64]"), std::string::npos) << text;
}

TEST(Inspect, HostileNamesAreDisarmed) {
  const TemporaryFolder folder;
  auto parts = formats::testing::small_gguf();
  parts.pairs.push_back(GgufParts::pair("evil\x1b[2J", "value\x1b]0;title\x07"));
  parts.tensors[0] = GgufParts::tensor("name\x1b[31m\xff", {8, 4}, 0, 0);
  const auto path = folder.write("m.gguf", parts.bytes());
  try {
    const auto checkpoint = formats::open_checkpoint(path);
    const auto text = inspection_text(checkpoint, true);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\x07'), std::string::npos);
    EXPECT_NO_THROW(inspection_json(checkpoint).dump());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_file);  // the reader may refuse such names itself
  }
}

TEST(Inspect, LongValuesAreCutAtACharacter) {
  const TemporaryFolder folder;
  auto parts = formats::testing::small_gguf();
  std::string value;
  for (int i = 0; i < 500; ++i) value += "漢";
  parts.pairs.push_back(GgufParts::pair("general.description", value));
  const auto text = inspection_text(formats::open_checkpoint(folder.write("m.gguf", parts.bytes())), false);
  EXPECT_NE(text.find("漢... (1500 bytes)"), std::string::npos) << text;
}

}  // namespace
}  // namespace cairn::app
