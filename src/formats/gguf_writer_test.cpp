#include "formats/gguf_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using codecs::CodecId;
using testing::message_of;
using testing::small_gguf;
using testing::TemporaryFolder;

class GgufWriterTest : public ::testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "m.gguf"; }
  size_t files() const {
    return size_t(std::distance(std::filesystem::directory_iterator(folder_.path()),
                                std::filesystem::directory_iterator()));
  }
  static std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

  TemporaryFolder folder_;
};

TEST_F(GgufWriterTest, WhatIsWrittenIsRead) {
  const std::string first(3 * 5 * 4, 'a'), second(2 * 34, 'b'), third(2 * 3 * 2, 'c');
  GgufWriter writer(path());
  writer.add_string("general.architecture", "llama");
  writer.add_u32("u32", 7);
  writer.add_i32("i32", -7);
  writer.add_u64("u64", ~0ull);
  writer.add_f32("f32", 0.5f);
  writer.add_bool("bool", true);
  writer.add_strings("strings", std::vector<std::string>{"", "x"});
  writer.add_i32s("i32s", std::vector<int32_t>{1, -2});
  writer.add_f32s("f32s", std::vector<float>{0.25f});
  writer.add_tensor("first", CodecId::f32, std::vector<int64_t>{3, 5});
  writer.add_tensor("second", CodecId::q8_0, std::vector<int64_t>{64});
  writer.add_tensor("third", CodecId::bf16, std::vector<int64_t>{2, 1, 3});
  const uint64_t size = writer.file_bytes();
  const std::string all = first + second + third;
  for (size_t at = 0; at < all.size(); at += 7)
    writer.write(bytes(all).subspan(at, std::min<size_t>(7, all.size() - at)));
  EXPECT_FALSE(std::filesystem::exists(path()));
  writer.finish();
  EXPECT_EQ(std::filesystem::file_size(path()), size);
  EXPECT_EQ(files(), 1u);

  const Gguf gguf = read_gguf(path());
  EXPECT_EQ(gguf.string("general.architecture"), "llama");
  EXPECT_EQ(gguf.integer("u32"), 7);
  EXPECT_EQ(gguf.integer("i32"), -7);
  EXPECT_EQ(gguf.number("u64"), 0x1p64);
  EXPECT_EQ(gguf.number("f32"), 0.5);
  EXPECT_EQ(gguf.boolean("bool"), true);
  EXPECT_EQ(gguf.strings("strings")->strings, (std::vector<std::string_view>{"", "x"}));
  EXPECT_EQ(gguf.integers("i32s")->integer(1), -2);
  EXPECT_EQ(gguf.numbers("f32s")->number(0), 0.25);
  ASSERT_EQ(gguf.tensors.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const std::string& wanted = i == 0 ? first : i == 1 ? second : third;
    const auto got = gguf.tensors[i].bytes;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(got.data()), got.size()), wanted);
  }
  EXPECT_EQ(gguf.tensors[2].shape, (std::vector<int64_t>{2, 1, 3}));
  EXPECT_EQ(gguf.tensors[2].codec, CodecId::bf16);
}

TEST_F(GgufWriterTest, MetadataIsCopiedAsItLies) {
  const std::string source = small_gguf().bytes();
  const Gguf read = parse_gguf(std::as_bytes(std::span(source)), "source");
  GgufWriter writer(path(), 64);
  for (size_t i = 0; i < read.metadata.size(); ++i)
    writer.add_encoded(read.metadata[i].first, read.encoded[i]);
  for (const Tensor& tensor : read.tensors) writer.add_tensor(tensor.name, tensor.codec, tensor.shape);
  for (const Tensor& tensor : read.tensors) writer.write(tensor.bytes);
  writer.finish();
  const Gguf copy = read_gguf(path());
  EXPECT_EQ(copy.alignment, 64u);
  ASSERT_EQ(copy.metadata.size(), read.metadata.size() + 1);
  for (size_t i = 0; i < read.metadata.size(); ++i) {
    EXPECT_EQ(copy.metadata[i + 1].first, read.metadata[i].first);
    EXPECT_TRUE(std::ranges::equal(copy.encoded[i + 1], read.encoded[i])) << read.metadata[i].first;
  }
  for (size_t i = 0; i < 2; ++i)
    EXPECT_TRUE(std::ranges::equal(copy.tensors[i].bytes, read.tensors[i].bytes));
}

TEST_F(GgufWriterTest, OnlyMetadataIsAFileToo) {
  GgufWriter writer(path());
  writer.add_string("general.architecture", "llama");
  writer.finish();
  EXPECT_EQ(read_gguf(path()).metadata.size(), 1u);
}

TEST_F(GgufWriterTest, MistakesAreNamedAndLeaveNothing) {
  {
    GgufWriter writer(path());
    writer.add_u32("k", 1);
    EXPECT_NE(message_of([&] { writer.add_u32("k", 2); }).find("'k' is empty or was added before"),
              std::string::npos);
    const auto tensor = [&](const std::string& name, CodecId codec, std::vector<int64_t> shape) {
      return message_of([&] { writer.add_tensor(name, codec, shape); });
    };
    EXPECT_NE(tensor("t", CodecId::q8_0, {33}).find("rows of 33"), std::string::npos);
    EXPECT_NE(tensor("t", CodecId::f32, {}).find("0 dimensions"), std::string::npos);
    EXPECT_NE(tensor("t", CodecId::f32, {1, 1, 1, 1, 1}).find("5 dimensions"), std::string::npos);
    EXPECT_NE(tensor("t", CodecId::f32, {2, 0}).find("dimension 1 of size 0"), std::string::npos);
    EXPECT_NE(tensor("t", CodecId::f32, {int64_t{1} << 62, 16}).find("too large"), std::string::npos);
    EXPECT_NE(tensor(std::string(64, 't'), CodecId::f32, {1}).find("64 bytes"), std::string::npos);
    EXPECT_EQ(tensor("t", CodecId::f32, {2}), "");
    EXPECT_NE(tensor("t", CodecId::f32, {2}).find("was added before"), std::string::npos);
    writer.write(bytes("12345"));
    EXPECT_NE(message_of([&] { writer.finish(); }).find("'t' got 5 of its 8 bytes"), std::string::npos);
    EXPECT_NE(message_of([&] { writer.write(bytes("6789")); }).find("1 bytes follow"), std::string::npos);
    EXPECT_NE(tensor("late", CodecId::f32, {2}).find("after"), std::string::npos);
    EXPECT_NE(message_of([&] { writer.add_u32("late", 2); }).find("after"), std::string::npos);
  }
  EXPECT_EQ(files(), 0u);
  EXPECT_NE(message_of([&] { GgufWriter(path(), 48); }).find("alignment 48"), std::string::npos);
  EXPECT_NE(message_of([&] { GgufWriter(folder_.path() / "no" / "m.gguf"); }).find("cannot write"),
            std::string::npos);
}

TEST_F(GgufWriterTest, AFullDiskIsAnErrorAndLeavesNothing) {
  folder_.write("m.gguf", "the old file");
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{1 << 16, old.rlim_max};
  {
    GgufWriter writer(path());
    writer.add_tensor("t", CodecId::f32, std::vector<int64_t>{1 << 20});
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = message_of([&] { writer.write(bytes(std::string(1 << 22, 'x'))); });
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
  }
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(read_text_file(path()), "the old file");
}

}  // namespace
}  // namespace cairn::formats
