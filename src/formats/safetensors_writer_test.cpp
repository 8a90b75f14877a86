#include "formats/safetensors_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/mapped_file.h"
#include "formats/safetensors.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using testing::message_of;
using testing::TemporaryFolder;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

class SafetensorsWriterTest : public ::testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "m.safetensors"; }
  size_t files() const {
    return size_t(std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsWriterTest, ReadsBackWhatItWrote) {
  SafetensorsWriter writer(path());
  writer.add_metadata("format", "pt");
  writer.add_tensor("b \"quoted\"", "F32", std::vector<int64_t>{1, 2});
  writer.add_tensor("a", "I32", std::vector<int64_t>{});
  writer.add_tensor("none", "F16", std::vector<int64_t>{0, 4});
  writer.add_tensor("raw", "U8", std::vector<int64_t>{3});
  EXPECT_EQ(writer.data_bytes(), 15u);
  writer.write(bytes("01234"));
  EXPECT_FALSE(std::filesystem::exists(path()));
  writer.write(bytes("567abcdxyz"));
  writer.finish();
  const auto file = read_safetensors(path());
  ASSERT_EQ(file.tensors.size(), 4u);
  EXPECT_EQ(file.metadata.at("format"), "pt");
  EXPECT_EQ(file.tensors[0].name, "b \"quoted\"");
  EXPECT_EQ(file.tensors[0].shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(std::memcmp(file.tensors[0].bytes.data(), "01234567", 8), 0);
  EXPECT_EQ(file.tensors[1].name, "a");
  EXPECT_EQ(std::memcmp(file.tensors[1].bytes.data(), "abcd", 4), 0);
  EXPECT_EQ(uintptr_t(file.tensors[0].bytes.data()) % 8, 0u);
  EXPECT_EQ(files(), 1u);
}

TEST_F(SafetensorsWriterTest, RefusesWhatIsNoFile) {
  {
    SafetensorsWriter writer(path());
    const auto add = [&](std::string_view name, std::string_view dtype, std::vector<int64_t> shape) {
      return message_of([&] { writer.add_tensor(name, dtype, shape); });
    };
    EXPECT_NE(add("t", "F31", {1}).find("unknown dtype 'F31'"), std::string::npos);
    EXPECT_NE(add("", "F32", {1}).find("no name"), std::string::npos);
    EXPECT_NE(add("neg", "F32", {-1}).find("extent of -1"), std::string::npos);
    EXPECT_NE(add("big", "F32", {int64_t{1} << 62, 16}).find("overflows"), std::string::npos);
    EXPECT_NE(add("half", "F4", {1}).find("inside a byte"), std::string::npos);
    EXPECT_EQ(add("ok", "F32", {2}), "");
    EXPECT_NE(add("ok", "F32", {2}).find("no name of its own"), std::string::npos);
    writer.write(bytes("12345"));
    EXPECT_NE(message_of([&] { writer.finish(); }).find("5 of their 8 bytes"), std::string::npos);
    EXPECT_NE(message_of([&] { writer.write(bytes("6789")); }).find("1 bytes follow"), std::string::npos);
    EXPECT_NE(add("late", "F32", {1}).find("after"), std::string::npos);
  }
  EXPECT_EQ(files(), 0u);
}

TEST_F(SafetensorsWriterTest, AFullDiskIsAnErrorAndLeavesNothing) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{1 << 16, old.rlim_max};
  {
    SafetensorsWriter writer(path());
    writer.add_tensor("t", "F32", std::vector<int64_t>{1 << 20});
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = message_of([&] { writer.write(bytes(std::string(1 << 22, 'x'))); });
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
  }
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace cairn::formats
