#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;
using testing::Bytes;
using testing::kSmallHeader;
using testing::message_of;
using testing::safetensors_bytes;
using testing::TemporaryFolder;

Safetensors parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "m.safetensors");
}

AssertionResult says(const std::string& message, std::initializer_list<std::string_view> parts) {
  if (message.empty()) return AssertionFailure() << "accepted";
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return AssertionFailure() << "'" << part << "' is not in: " << message;
  return AssertionSuccess();
}

AssertionResult refused(std::string_view header, size_t data, std::initializer_list<std::string_view> parts) {
  return says(message_of([&] { parse(safetensors_bytes(header, data)); }), parts);
}

// One tensor "t" with these fields.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"t":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string bytes = safetensors_bytes(std::string(kSmallHeader) + "   ", 32);  // padded with spaces
  const Safetensors file = parse(bytes);
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.tensors[1].codec, codecs::CodecId::f16);
  EXPECT_EQ(file.tensors[1].bytes.data(), std::as_bytes(std::span(bytes)).data() + bytes.size() - 8);
  EXPECT_EQ(parse(safetensors_bytes("{}", 0)).tensors.size(), 0u);
}

TEST(Safetensors, ReadsEveryTypeWithACodecAndListsTheOthers) {
  for (const auto& [dtype, bytes] : std::vector<std::pair<std::string, int>>{{"F64", 8},
                                                                             {"F32", 4},
                                                                             {"F16", 2},
                                                                             {"BF16", 2},
                                                                             {"I64", 8},
                                                                             {"I32", 4},
                                                                             {"I16", 2},
                                                                             {"I8", 1},
                                                                             {"U8", 1},
                                                                             {"F8_E4M3", 1}}) {
    const std::string file =
        safetensors_bytes(one(dtype, "[3]", fmt::format("[0,{}]", 3 * bytes)), size_t(3 * bytes));
    EXPECT_EQ(parse(file).tensors.at(0).bytes.size(), size_t(3 * bytes)) << dtype;
  }
  for (const std::string dtype : {"BOOL", "F8_E5M2", "F8_E8M0"}) {
    const Safetensors file = parse(safetensors_bytes(one(dtype, "[3]", "[0,3]"), 3));
    EXPECT_TRUE(file.tensors.empty());
    EXPECT_EQ(file.unreadable.at("t"), dtype);
  }
  EXPECT_TRUE(refused(one("Q4", "[3]", "[0,3]"), 3, {"tensor 't'", "unknown dtype 'Q4'"}));
  Checkpoint checkpoint;
  TemporaryFolder folder;
  open_safetensors_file(folder.write("m.safetensors", safetensors_bytes(one("F8_E5M2", "[3]", "[0,3]"), 3)),
                        checkpoint);
  EXPECT_TRUE(says(message_of([&] { checkpoint.find("t"); }), {"'t' is stored as F8_E5M2"}));
}

TEST(Safetensors, ScalarsAndEmptyTensorsAreAllowed) {
  EXPECT_EQ(parse(safetensors_bytes(one("F32", "[]", "[0,4]"), 4)).tensors[0].elements(), 1);
  EXPECT_EQ(parse(safetensors_bytes(one("F32", "[0,5]", "[0,0]"), 0)).tensors[0].elements(), 0);
  EXPECT_EQ(parse(safetensors_bytes(one("F32", "[4611686018427387904,0]", "[0,0]"), 0)).tensors[0].elements(),
            0);
}

TEST(Safetensors, EveryTruncationNamesTheFile) {
  const std::string whole = safetensors_bytes(kSmallHeader, 32);
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_TRUE(says(message_of([&] { parse(whole.substr(0, size)); }), {"m.safetensors"})) << size;
  EXPECT_TRUE(refused(kSmallHeader, 31, {"'b'", "byte 32", "31 bytes", "cut off"}));
  EXPECT_TRUE(refused(kSmallHeader, 33, {"end at byte 32", "33 bytes"}));
}

TEST(Safetensors, HeaderSizesPastTheFileAreRefused) {
  for (const uint64_t size : {100ull, 100'000'001ull, 1ull << 32, 1ull << 63, ~0ull, ~0ull - 7})
    EXPECT_TRUE(
        says(message_of([&] { parse(Bytes().put(size).raw("{}").string()); }), {std::to_string(size), "10"}));
  EXPECT_TRUE(says(message_of([&] { parse(Bytes().put(uint64_t{0}).raw("{}").string()); }), {"'{'"}));
}

TEST(Safetensors, OffsetsThatOverlapOrLeaveHolesAreRefused) {
  const auto two = [](std::string_view a, std::string_view b) {
    return fmt::format(R"({{"a":{{"dtype":"I8","shape":[4],"data_offsets":{}}},)"
                       R"("b":{{"dtype":"I8","shape":[4],"data_offsets":{}}}}})",
                       a, b);
  };
  EXPECT_EQ(parse(safetensors_bytes(two("[4,8]", "[0,4]"), 8)).tensors[0].name,
            "b");  // any order in the header
  EXPECT_TRUE(refused(two("[0,4]", "[2,6]"), 6, {"'b' begins at byte 2", "ends at 4"}));
  EXPECT_TRUE(refused(two("[0,4]", "[0,4]"), 4, {"begins at byte 0", "ends at 4"}));
  EXPECT_TRUE(refused(two("[0,4]", "[5,9]"), 9, {"'b' begins at byte 5", "ends at 4"}));
  EXPECT_TRUE(refused(two("[1,5]", "[5,9]"), 9, {"'a' begins at byte 1", "ends at 0"}));
  EXPECT_TRUE(refused(one("I8", "[4]", "[4,0]"), 4, {"begins at byte 4 and ends before it, at 0"}));
  EXPECT_TRUE(refused(one("I8", "[4]", "[18446744073709551612,18446744073709551616]"), 4, {"'t'"}));
  EXPECT_TRUE(
      refused(one("I8", "[4]", "[18446744073709551611,18446744073709551615]"), 4, {"'t'", "cut off"}));
}

TEST(Safetensors, ShapesThatDisagreeWithTheBytesAreRefused) {
  EXPECT_TRUE(
      refused(one("F32", "[2,3]", "[0,20]"), 20, {"'t'", "20 bytes", "24 by its shape and dtype F32"}));
  EXPECT_TRUE(refused(one("F32", "[4611686018427387904,4]", "[0,0]"), 0, {"overflows"}));
  EXPECT_TRUE(refused(one("F32", "[4294967296,4294967296]", "[0,0]"), 0, {"overflows"}));
  EXPECT_TRUE(refused(one("F32", "[1152921504606846976]", "[0,0]"), 0, {"overflows"}));
  EXPECT_TRUE(refused(one("F4", "[3]", "[0,1]"), 1, {"ends inside a byte"}));
  EXPECT_TRUE(refused(one("F32", "[-1]", "[0,4]"), 4, {"'t'", "'shape' contains the number -1"}));
  EXPECT_TRUE(refused(one("F32", "[1.5]", "[0,4]"), 4, {"'t'", "1.5"}));
  EXPECT_TRUE(refused(one("F32", "[1e400]", "[0,4]"), 4, {"not valid JSON"}));
  EXPECT_TRUE(refused(one("F32", "[18446744073709551615]", "[0,4]"), 4, {"'t'", "18446744073709551615"}));
  EXPECT_TRUE(refused(one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, {"'t'", "dimension 8"}));
}

TEST(Safetensors, HeadersOfAnotherShapeAreRefused) {
  for (const auto& [header, part] : std::vector<std::pair<std::string, std::string>>{
           {R"({"t":1})", "entry 't' contains the number 1"},
           {R"({"t":null})", "null"},
           {R"({"t":"x"})", "the text 'x'"},
           {R"({"t":[1]})", "an array"},
           {R"({"t":{}})", "no dtype"},
           {R"({"t":{"dtype":"F32"}})", "no shape"},
           {R"({"t":{"dtype":"F32","shape":[1]}})", "no pair of data_offsets"},
           {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "no pair of data_offsets"},
           {R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", "more than two data_offsets"},
           {R"({"t":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})", "two dtypes"},
           {R"({"t":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", "two fields 'shape'"},
           {R"({"t":{"dtype":7}})", "'dtype' contains the number 7"},
           {R"({"t":{"dtype":{}}})", "an object"},
           {R"({"t":{"shape":4}})", "'shape' contains the number 4"},
           {R"({"t":{"shape":[[4]]}})", "an array"},
           {R"({"t":{"shape":[true]}})", "a bool"},
           {R"({"t":{"surprise":1}})", "unknown field 'surprise'"},
           {R"({"__metadata__":{"a":1}})", "the number 1"},
           {R"({"__metadata__":{"a":"b","a":"c"}})", "names 'a' twice"},
           {R"({"__metadata__":{"a":{}}})", "an object"},
           {R"({} {})", "not valid JSON"},
           {R"({"t":)", "not valid JSON"},
           {R"({"t")" + std::string(50000, '{'), "not valid JSON"},
           {R"({"t":)" + std::string(50000, '['), "an array"}})
    EXPECT_TRUE(refused(header, 4, {"m.safetensors", part})) << header.substr(0, 60);
  const std::string tensor = R"("t":{"dtype":"I8","shape":[1],"data_offsets":)";
  EXPECT_TRUE(refused("{" + tensor + "[0,1]}," + tensor + "[1,2]}}", 2, {"'t' appears twice"}));
}

class SafetensorsFolder : public ::testing::Test {
 protected:
  void index(std::string_view text) const { folder_.write("model.safetensors.index.json", text); }
  void shard(const std::string& name, const std::string& tensor) const {
    folder_.write(name, safetensors_bytes(
                            R"({")" + tensor + R"(":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}})", 4));
  }
  AssertionResult refuses(std::initializer_list<std::string_view> parts) const {
    return says(message_of([&] {
                  Checkpoint checkpoint;
                  open_safetensors_folder(folder_.path(), checkpoint);
                }),
                parts);
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsFolder, ShardsAreReadByTheirIndex) {
  shard("1.safetensors", "a");
  shard("2.safetensors", "b");
  shard("other.safetensors", "a");  // not in the index: not read
  index(R"({"metadata": {"total_size": 8}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  Checkpoint checkpoint;
  open_safetensors_folder(folder_.path(), checkpoint);
  EXPECT_EQ(checkpoint.files.size(), 2u);
  EXPECT_EQ(checkpoint.require("b").file, 1);
}

TEST_F(SafetensorsFolder, IndexErrorsNameShardAndTensor) {
  shard("1.safetensors", "a");
  index(R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  EXPECT_TRUE(refuses({"2.safetensors is missing", "places 1 tensors"}));
  index(R"({"weight_map": {"a": "1.safetensors", "b": "1.safetensors"}})");
  EXPECT_TRUE(refuses({"places tensor 'b'", "1.safetensors, which does not hold it"}));
  shard("2.safetensors", "a");
  index(R"({"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}})");
  EXPECT_TRUE(refuses({"'b'", "does not hold it"}));
  for (const std::string name : {"../1.safetensors", "/etc/passwd", "..", "", "a/b", "a\\\\b", "a\\u0000b"}) {
    index(R"({"weight_map": {"a": ")" + name + R"("}})");
    EXPECT_TRUE(refuses({"model.safetensors.index.json", "no plain file name"})) << name;
  }
  for (const std::string text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": null})"}) {
    index(text);
    EXPECT_TRUE(refuses({"'weight_map' is missing"})) << text;
  }
  index(R"({"weight_map": {"a": 1}})");
  EXPECT_TRUE(refuses({"no file name for 'a'"}));
  shard("2.safetensors", "a");
  folder_.write("3.safetensors", safetensors_bytes(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
                                                   R"("c":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}})",
                                                   2));
  index(R"({"weight_map": {"a": "2.safetensors", "c": "3.safetensors"}})");
  EXPECT_TRUE(refuses({"3.safetensors: tensor 'a' is already in another file"}));
}

TEST_F(SafetensorsFolder, ATruncatedShardNamesFileAndBothSizes) {
  shard("1.safetensors", "a");
  const auto path = folder_.path() / "1.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  index(R"({"weight_map": {"a": "1.safetensors"}})");
  EXPECT_TRUE(refuses({"1.safetensors", "4 bytes long", "only 3 bytes"}));
}

TEST_F(SafetensorsFolder, WithoutAnIndexOneFileIsTheModel) {
  EXPECT_TRUE(refuses({"no *.safetensors"}));
  shard("x.safetensors", "a");
  Checkpoint checkpoint;
  open_safetensors_folder(folder_.path(), checkpoint);
  EXPECT_EQ(checkpoint.tensors.size(), 1u);
  shard("y.safetensors", "b");
  EXPECT_TRUE(refuses({"2 *.safetensors files", "index"}));
  shard("model.safetensors", "c");
  Checkpoint single;
  open_safetensors_folder(folder_.path(), single);
  EXPECT_NE(single.find("c"), nullptr);
  EXPECT_EQ(single.tensors.size(), 1u);
}

}  // namespace
}  // namespace cairn::formats
