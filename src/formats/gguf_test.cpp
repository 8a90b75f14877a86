#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <limits>
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
using testing::message_of;
using testing::small_gguf;

constexpr uint64_t kExtremes[] = {0, 1, 1ull << 31, (1ull << 32) - 1, 1ull << 63, ~0ull};

Gguf parse(const std::string& bytes) { return parse_gguf(std::as_bytes(std::span(bytes)), "model.gguf"); }

// The file must be refused with a sentence that has all of `parts` in it.
AssertionResult refused(const std::string& bytes, std::initializer_list<std::string_view> parts) {
  const std::string message = message_of([&] { parse(bytes); });
  if (message.empty()) return AssertionFailure() << "accepted";
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return AssertionFailure() << "'" << part << "' is not in: " << message;
  return AssertionSuccess();
}

TEST(Gguf, ReadsValuesArraysAndTensors) {
  const std::string bytes = small_gguf().bytes();
  const Gguf gguf = parse(bytes);
  EXPECT_EQ(gguf.version, 3u);
  EXPECT_EQ(gguf.string("general.architecture"), "llama");
  EXPECT_EQ(gguf.integer("llama.block_count"), 1);
  EXPECT_EQ(gguf.number("llama.block_count"), 1.0);
  EXPECT_EQ(gguf.number("llama.rope.freq_base"), 10000.0);
  EXPECT_EQ(gguf.integer("absent"), std::nullopt);
  EXPECT_EQ(gguf.strings("tokenizer.ggml.tokens")->strings,
            (std::vector<std::string_view>{"<unk>", "a", ""}));
  EXPECT_EQ(gguf.integers("llama.attention.head_count")->integer(1), 8);
  ASSERT_EQ(gguf.tensors.size(), 2u);
  EXPECT_EQ(gguf.tensors[0].shape, (std::vector<int64_t>{4, 8}));
  EXPECT_EQ(gguf.tensors[0].bytes.size(), 128u);
  float last = 0;
  std::memcpy(&last, gguf.tensors[0].bytes.data() + 124, 4);
  EXPECT_EQ(last, 31.f);
  EXPECT_EQ(gguf.tensors[1].codec, codecs::CodecId::q8_0);
  EXPECT_EQ(gguf.tensors[1].bytes.size(), 136u);
}

TEST(Gguf, ReadsEveryNumberTypeAtItsLimits) {
  GgufParts parts;
  parts.pairs = {GgufParts::pair("u8", GgufType::u8, uint8_t{255}),
                 GgufParts::pair("i8", GgufType::i8, int8_t{-128}),
                 GgufParts::pair("u16", GgufType::u16, uint16_t{65535}),
                 GgufParts::pair("i16", GgufType::i16, int16_t{-32768}),
                 GgufParts::pair("u32", GgufType::u32, ~uint32_t{0}),
                 GgufParts::pair("i32", GgufType::i32, std::numeric_limits<int32_t>::min()),
                 GgufParts::pair("u64", GgufType::u64, ~uint64_t{0}),
                 GgufParts::pair("i64", GgufType::i64, std::numeric_limits<int64_t>::min()),
                 GgufParts::pair("f64", GgufType::f64, 0.1),
                 GgufParts::pair("bool", GgufType::boolean, uint8_t{1}),
                 GgufParts::array("doubles", GgufType::f64, std::vector<double>{0.5, -1}),
                 GgufParts::array("large", GgufType::u64, std::vector<uint64_t>{~0ull})};
  const std::string bytes = parts.bytes();
  const Gguf gguf = parse(bytes);
  EXPECT_EQ(gguf.integer("u8"), 255);
  EXPECT_EQ(gguf.integer("i8"), -128);
  EXPECT_EQ(gguf.integer("u16"), 65535);
  EXPECT_EQ(gguf.integer("i16"), -32768);
  EXPECT_EQ(gguf.integer("u32"), 4294967295);
  EXPECT_EQ(gguf.integer("i32"), std::numeric_limits<int32_t>::min());
  EXPECT_EQ(gguf.integer("i64"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(gguf.number("f64"), 0.1);
  EXPECT_EQ(gguf.boolean("bool"), true);
  EXPECT_EQ(gguf.numbers("doubles")->number(1), -1.0);
  EXPECT_NE(message_of([&] { gguf.integer("u64"); }).find("'u64' is 18446744073709551615"),
            std::string::npos);
  EXPECT_NE(message_of([&] { gguf.array("large")->integer(0); }), "");
}

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string whole = small_gguf().bytes();
  const size_t needed = whole.size() - 24;  // the last tensor's padding may be missing
  for (size_t size = 0; size < needed; ++size)
    EXPECT_TRUE(refused(whole.substr(0, size), {"model.gguf"})) << size;
  EXPECT_EQ(parse(whole.substr(0, needed)).tensors.size(), 2u);
}

// Overwrites every aligned and unaligned place of the header with extreme values of 4 and 8 bytes. No
// assertion but that nothing crashes, hangs or throws anything else than Error: sanitizers watch.
TEST(Gguf, ExtremeNumbersAnywhereDoNoHarm) {
  const std::string whole = small_gguf().bytes();
  size_t accepted = 0;
  for (const uint64_t value : kExtremes)
    for (const size_t width : {4, 8})
      for (size_t at = 4; at + width <= whole.size(); ++at) {
        std::string bytes = whole;
        std::memcpy(bytes.data() + at, &value, width);
        try {
          const Gguf gguf = parse(bytes);
          gguf_config(gguf);
          for (const Tensor& tensor : gguf.tensors)
            ASSERT_TRUE(tensor.bytes.data() >= std::as_bytes(std::span(bytes)).data() &&
                        tensor.bytes.data() + tensor.bytes.size() <=
                            std::as_bytes(std::span(bytes)).data() + bytes.size());
          ++accepted;
        } catch (const Error&) {
        }
      }
  EXPECT_GT(accepted, 0u);  // changed data and values are accepted
}

TEST(Gguf, CountsPastTheFileAreRefused) {
  const GgufParts parts = small_gguf();
  for (const uint64_t count : {1ull << 31, (1ull << 32) - 1, 1ull << 63, ~0ull, (1ull << 63) / 13 * 2}) {
    EXPECT_TRUE(
        refused(parts.bytes(2, count), {"the header promises", std::to_string(count), "key-value pairs"}));
    EXPECT_TRUE(refused(parts.bytes(count, 5), {"the header promises", std::to_string(count), "tensors"}));
  }
  EXPECT_TRUE(refused(parts.bytes(3, 5), {"model.gguf"}));
  EXPECT_TRUE(refused(parts.bytes(2, 6), {"model.gguf"}));
}

TEST(Gguf, StringLengthsPastTheFileAreRefused) {
  for (const uint64_t length : {1000ull, 1ull << 31, (1ull << 32) - 1, 1ull << 63, ~0ull}) {
    const std::string wanted = std::to_string(length);
    GgufParts parts;
    parts.pairs = {Bytes().put(length).raw("key").put(uint32_t{4}).put(uint32_t{0}).string()};
    EXPECT_TRUE(refused(parts.bytes(), {"key-value pair 0", wanted}));
    parts.pairs = {GgufParts::key("name", GgufType::string) + Bytes().put(length).raw("x").string()};
    EXPECT_TRUE(refused(parts.bytes(), {"key 'name'", wanted}));
    parts.pairs = {GgufParts::key("list", GgufType::array) +
                   Bytes().put(uint32_t{8}).put(uint64_t{1}).put(length).raw("x").string()};
    EXPECT_TRUE(refused(parts.bytes(), {"key 'list'", wanted}));
    parts = small_gguf();
    parts.tensors[1] = Bytes().put(length).string();
    EXPECT_TRUE(refused(parts.bytes(), {"tensor 1", wanted}));
  }
  GgufParts parts;
  parts.pairs = {GgufParts::pair("", "empty key")};
  EXPECT_TRUE(refused(parts.bytes(), {"key-value pair 0", "a key of 0 bytes"}));
  parts.pairs = {GgufParts::pair(std::string(65536, 'k'), "long key")};
  EXPECT_TRUE(refused(parts.bytes(), {"a key of 65536 bytes"}));
  parts = small_gguf();
  parts.tensors[0] = GgufParts::tensor(std::string(256, 't'), {8, 4}, 0, 0);
  EXPECT_TRUE(refused(parts.bytes(), {"tensor 0", "a name of 256 bytes"}));
}

TEST(Gguf, TokensOfOddLengthsAreReadAsTheyAre) {
  GgufParts parts;
  parts.pairs = {GgufParts::array("tokenizer.ggml.tokens", {"", "x", std::string(1 << 16, 'y'), "\xff\xfe"})};
  const std::string bytes = parts.bytes();
  const Gguf gguf = parse(bytes);
  EXPECT_EQ(gguf.strings("tokenizer.ggml.tokens")->strings[2].size(), size_t{1} << 16);
  parts.pairs = {GgufParts::key("tokenizer.ggml.tokens", GgufType::array) +
                 Bytes().put(uint32_t{8}).put(uint64_t{1}).put(uint64_t{1} << 31).raw("x").string()};
  EXPECT_TRUE(refused(parts.bytes(), {"tokenizer.ggml.tokens", "2147483648"}));
}

TEST(Gguf, ArrayCountsPastTheFileAreRefusedAtOnce) {
  for (const GgufType type : {GgufType::u8, GgufType::i8, GgufType::u16, GgufType::f32, GgufType::string,
                              GgufType::u64, GgufType::boolean})
    for (const uint64_t count : {1000ull, 1ull << 31, (1ull << 32) - 1, 1ull << 61, 1ull << 63, ~0ull}) {
      GgufParts parts;
      parts.pairs = {GgufParts::key("k", GgufType::array) + Bytes().put(uint32_t(type)).put(count).string()};
      EXPECT_TRUE(refused(parts.bytes(), {"key 'k'", std::to_string(count), to_string(type)}));
    }
}

TEST(Gguf, NestedArraysAndUnknownTypesAreRefused) {
  GgufParts parts;
  parts.pairs = {GgufParts::key("k", GgufType::array) + Bytes().put(uint32_t{9}).put(uint64_t{1}).string()};
  EXPECT_TRUE(refused(parts.bytes(), {"key 'k'", "array of arrays"}));
  for (const uint32_t type : {13u, 255u, ~0u}) {
    parts.pairs = {GgufParts::key("k", GgufType(type)) + "xxxxxxxx"};
    EXPECT_TRUE(refused(parts.bytes(), {"key 'k'", "value type " + std::to_string(type)}));
    parts.pairs = {GgufParts::key("k", GgufType::array) +
                   Bytes().put(type).put(uint64_t{1}).zeros(8).string()};
    EXPECT_TRUE(refused(parts.bytes(), {"key 'k'", "value type " + std::to_string(type)}));
  }
  parts.pairs = {GgufParts::pair("flag", GgufType::boolean, uint8_t{2})};
  EXPECT_TRUE(refused(parts.bytes(), {"key 'flag'", "bool of value 2"}));
  parts.pairs = {GgufParts::array("flags", GgufType::boolean, std::vector<uint8_t>{0, 1, 7})};
  EXPECT_TRUE(refused(parts.bytes(), {"key 'flags'", "bool of value 7"}));
}

TEST(Gguf, VersionsAndByteOrdersThatAreNotReadAreNamed) {
  GgufParts parts = small_gguf();
  EXPECT_TRUE(refused("", {"does not begin with"}));
  EXPECT_TRUE(refused("GGUF", {"the header", "ends"}));  // the four-byte file that crashed a server
  EXPECT_TRUE(refused("GGML" + parts.bytes().substr(4), {"does not begin with"}));
  parts.version = 1;
  EXPECT_TRUE(refused(parts.bytes(), {"version 1"}));
  parts.version = 4;
  EXPECT_TRUE(refused(parts.bytes(), {"version 4 is unknown"}));
  parts.version = 0;
  EXPECT_TRUE(refused(parts.bytes(), {"version 0 is unknown"}));
  parts.version = 0x03000000;
  EXPECT_TRUE(refused(parts.bytes(), {"big-endian"}));
  parts.version = 2;
  const std::string version2 = parts.bytes();
  EXPECT_EQ(parse(version2).tensors.size(), 2u);
}

TEST(Gguf, DuplicatesAreRefused) {
  GgufParts parts = small_gguf();
  parts.pairs.push_back(GgufParts::pair("llama.block_count", GgufType::u32, uint32_t{2}));
  EXPECT_TRUE(refused(parts.bytes(), {"key 'llama.block_count' appears twice"}));
  parts = small_gguf();
  parts.tensors[1] = GgufParts::tensor("token_embd.weight", {64, 2}, 8, 128);
  EXPECT_TRUE(refused(parts.bytes(), {"tensor 'token_embd.weight' appears twice"}));
}

TEST(Gguf, AlignmentIsBoundedAndTyped) {
  const auto with = [](const std::string& pair) {
    GgufParts parts = small_gguf();
    parts.pairs.push_back(pair);
    return parts.bytes();
  };
  for (const uint32_t value : {0u, 3u, 48u, 1u << 17, 1u << 31, ~0u})
    EXPECT_TRUE(refused(with(GgufParts::pair("general.alignment", GgufType::u32, value)),
                        {"'general.alignment' is " + std::to_string(value)}));
  EXPECT_TRUE(refused(with(GgufParts::pair("general.alignment", "32")), {"'general.alignment' is a string"}));
  EXPECT_TRUE(
      refused(with(GgufParts::pair("general.alignment", GgufType::u64, uint64_t{32})), {"must be a u32"}));
  EXPECT_TRUE(refused(with(GgufParts::pair("general.alignment", GgufType::f32, 32.f)), {"is a float"}));
  EXPECT_TRUE(refused(with(GgufParts::array("general.alignment", GgufType::u32, std::vector<uint32_t>{32})),
                      {"is an array of u32"}));
  EXPECT_TRUE(refused(with(GgufParts::pair("general.alignment", GgufType::i32, int32_t{-32})), {"is -32"}));
  GgufParts parts = small_gguf();
  parts.pairs.push_back(GgufParts::pair("general.alignment", GgufType::u32, uint32_t{64}));
  parts.alignment = 64;
  const std::string bytes = parts.bytes();
  EXPECT_EQ(parse(bytes).alignment, 64u);
  parts.tensors[1] = GgufParts::tensor("output.weight", {64, 2}, 8, 32);
  EXPECT_TRUE(refused(parts.bytes(), {"'output.weight'", "offset 32", "alignment 64"}));
}

TEST(Gguf, ImpossibleDimensionsAreRefused) {
  const auto with = [](std::vector<uint64_t> dims, uint32_t type) {
    GgufParts parts = small_gguf();
    parts.tensors[0] = GgufParts::tensor("t", dims, type, 0);
    return parts.bytes();
  };
  EXPECT_TRUE(refused(with({8, 4, 1, 1, 1}, 0), {"tensor 't'", "5 dimensions"}));
  EXPECT_TRUE(refused(with({8, 0}, 0), {"tensor 't'", "dimension 1 of size 0"}));
  EXPECT_TRUE(refused(with({0}, 0), {"tensor 't'", "dimension 0 of size 0"}));
  EXPECT_TRUE(refused(with({~0ull}, 0), {"tensor 't'", "18446744073709551615"}));
  EXPECT_TRUE(refused(with({1ull << 63}, 0), {"tensor 't'"}));
  EXPECT_TRUE(refused(with({1, 1ull << 32, 1ull << 32}, 0), {"tensor 't'", "overflows"}));
  EXPECT_TRUE(refused(with({1ull << 32, 1ull << 32}, 0), {"tensor 't'", "overflows"}));
  EXPECT_TRUE(refused(with({1ull << 32, 1ull << 31}, 0), {"tensor 't'", "overflows"}));  // x 4 bytes wraps
  EXPECT_TRUE(refused(with({(1ull << 42) + 1, 1ull << 22}, 0), {"tensor 't'", "overflows"}));
  EXPECT_TRUE(refused(with({1ull << 61, 2}, 0), {"tensor 't'", "overflows"}));
  EXPECT_TRUE(refused(with({1ull << 40}, 0), {"tensor 't'", "4398046511104 bytes"}));
  EXPECT_TRUE(refused(with({33, 4}, 8), {"tensor 't'", "33", "q8_0", "32"}));
  EXPECT_TRUE(refused(with({128, 2}, 12), {"tensor 't'", "128", "q4_k", "256"}));
  for (const uint32_t type : {4u, 5u, 31u, 36u, 1000u, ~0u})
    EXPECT_TRUE(refused(with({8, 4}, type), {"tensor 't'", "ggml type " + std::to_string(type)}));
}

TEST(Gguf, OffsetsOutsideOverlappingOrUnalignedAreRefused) {
  const auto with = [](uint64_t offset) {
    GgufParts parts = small_gguf();
    parts.tensors[1] = GgufParts::tensor("output.weight", {64, 2}, 8, offset);
    return parts.bytes();
  };
  EXPECT_TRUE(refused(with(129), {"'output.weight'", "offset 129", "alignment 32"}));
  EXPECT_TRUE(refused(with(96), {"'output.weight' begins at offset 96", "'token_embd.weight'", "128"}));
  EXPECT_TRUE(refused(with(0), {"inside tensor"}));
  EXPECT_TRUE(refused(with(160), {"'output.weight'", "136 bytes at offset 160"}));
  for (const uint64_t offset : {1ull << 31, 1ull << 32, 1ull << 63, ~0ull - 31})
    EXPECT_TRUE(refused(with(offset), {"'output.weight'", std::to_string(offset)}));
}

TEST(Gguf, ManyTensorsWhoseSizesSumPastTheFileAreRefused) {
  GgufParts parts;
  parts.data = std::string(256, 'x');
  for (int i = 0; i < 16; ++i)  // each would fit alone; together they claim 16 times the data
    parts.tensors.push_back(GgufParts::tensor("t" + std::to_string(i), {64}, 0, 0));
  EXPECT_TRUE(refused(parts.bytes(), {"inside tensor"}));
  parts.tensors.clear();
  for (int i = 0; i < 16; ++i)
    parts.tensors.push_back(GgufParts::tensor("t" + std::to_string(i), {1ull << 59}, 0, uint64_t(i) << 61));
  EXPECT_TRUE(refused(parts.bytes(), {"tensor 't0'", "2305843009213693952 bytes"}));
}

TEST(Gguf, TypedAccessNamesBothTypes) {
  const std::string bytes = small_gguf().bytes();
  const Gguf gguf = parse(bytes);
  const auto says = [](const std::string& message, std::string_view found, std::string_view wanted) {
    return message.find(found) != std::string::npos && message.find(wanted) != std::string::npos;
  };
  const std::vector<std::pair<std::string, std::string>> keys = {
      {"general.architecture", "a string"},
      {"llama.block_count", "an integer"},
      {"llama.rope.freq_base", "a float"},
      {"tokenizer.ggml.tokens", "an array of string"},
      {"llama.attention.head_count", "an array of i32"}};
  for (const auto& entry : keys) {
    const std::string &key = entry.first, &kind = entry.second;
    const auto is = [&](std::string_view name) { return kind.find(name) != std::string::npos; };
    const auto expect = [&](bool applies, const std::function<void()>& read, std::string_view wanted) {
      if (!applies) return;
      EXPECT_TRUE(says(message_of(read), "is " + kind, wanted)) << key << " read as " << wanted;
    };
    expect(
        !is("an integer"), [&] { gguf.integer(key); }, "must be an integer");
    expect(
        !is("an integer") && !is("a float"), [&] { gguf.number(key); }, "must be a number");
    expect(
        true, [&] { gguf.boolean(key); }, "must be a bool");
    expect(
        !is("a string"), [&] { gguf.string(key); }, "must be a string");
    expect(
        !is("array"), [&] { gguf.array(key); }, "must be an array");
    expect(
        !is("of string"), [&] { gguf.strings(key); }, "must be an array");
    expect(
        !is("of i32"), [&] { gguf.integers(key); }, "must be an array");
    expect(
        !is("of i32"), [&] { gguf.numbers(key); }, "must be an array");
  }
  // The public proof of concept: scores declared as i8 and read as float. Reading goes by the declared type.
  GgufParts parts;
  parts.pairs = {GgufParts::array("tokenizer.ggml.scores", GgufType::i8, std::vector<int8_t>{-1, 2})};
  const std::string scores = parts.bytes();
  EXPECT_EQ(parse(scores).numbers("tokenizer.ggml.scores")->number(1), 2.0);
}

TEST(Gguf, ConfigHoldsAllButTheVocabulary) {
  GgufParts parts = small_gguf();
  parts.pairs.push_back(GgufParts::pair("tokenizer.chat_template", "{{ x }}\xff"));
  parts.pairs.push_back(GgufParts::array("big", GgufType::u8, std::vector<uint8_t>(65537)));
  const std::string bytes = parts.bytes();
  const auto config = gguf_config(parse(bytes));
  EXPECT_EQ(config["llama.block_count"], 1);
  EXPECT_EQ(config["llama.attention.head_count"], (nlohmann::json{4, 8}));
  EXPECT_EQ(config["tokenizer.chat_template"], "{{ x }}\xef\xbf\xbd");
  EXPECT_FALSE(config.contains("tokenizer.ggml.tokens"));
  EXPECT_FALSE(config.contains("big"));
}

}  // namespace
}  // namespace cairn::formats
