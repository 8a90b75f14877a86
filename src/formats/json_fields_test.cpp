#include "formats/json_fields.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json_file.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using nlohmann::json;
using testing::message_of;

const std::string kFile = "config.json";

std::string int_error(const char* value) {
  const json config = parse_json(fmt::format(R"({{"hidden_size": {}}})", value), kFile);
  return message_of([&] { require_int(config, "hidden_size", 1, 1 << 20, kFile); });
}

TEST(JsonFields, IntegersNameFieldValueAndRange) {
  EXPECT_EQ(int_error("64"), "");
  EXPECT_EQ(int_error("0"), "config.json: 'hidden_size' is 0; it must lie between 1 and 1048576");
  EXPECT_EQ(int_error("-5"), "config.json: 'hidden_size' is -5; it must lie between 1 and 1048576");
  EXPECT_EQ(int_error("18446744073709551615"),
            "config.json: 'hidden_size' is 18446744073709551615; it must lie between 1 and 1048576");
  for (const char* wrong : {"1.5", "64.0", "1e30", "\"64\"", "true", "[64]", "{}", "18446744073709551616"})
    EXPECT_NE(int_error(wrong).find("it must be an integer"), std::string::npos) << wrong;
  EXPECT_EQ(int_error("null"), "config.json: the field 'hidden_size' is missing");
  EXPECT_EQ(optional_int(json{{"a", nullptr}}, "a", 0, 1, kFile), std::nullopt);
  EXPECT_NE(message_of([&] { require_int(json::array(), "a", 0, 1, kFile); }).find("expected an object"),
            std::string::npos);
}

TEST(JsonFields, NumbersAcceptIntegersAndRefuseNaN) {
  EXPECT_EQ(require_number(json{{"rope_theta", 10000}}, "rope_theta", 1, 1e9, kFile), 10000.0);
  EXPECT_EQ(optional_number(json{{"rope_theta", 0.5}}, "absent", 1, 1e9, kFile), std::nullopt);
  for (const json& wrong : {json("1"), json(true), json(0.5), json(1e10), json(std::nan("")), json(HUGE_VAL)})
    EXPECT_NE(message_of([&] { require_number(json{{"x", wrong}}, "x", 1, 1e9, kFile); }), "") << wrong;
}

TEST(JsonFields, OtherTypes) {
  const json config = {{"flag", true}, {"name", "silu"}, {"list", {1, 2}}, {"inner", {{"type", "yarn"}}}};
  EXPECT_TRUE(require_bool(config, "flag", kFile));
  EXPECT_EQ(require_string(config, "name", kFile), "silu");
  EXPECT_EQ(optional_ints(config, "list", 0, 2, kFile), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(optional_numbers(config, "list", 0, 2, kFile), (std::vector<double>{1, 2}));
  EXPECT_EQ(require_string(*optional_object(config, "inner", kFile), "type", kFile), "yarn");
  EXPECT_NE(
      message_of([&] { require_bool(config, "name", kFile); }).find("\"silu\"; it must be true or false"),
      std::string::npos);
  EXPECT_NE(message_of([&] { optional_ints(config, "list", 0, 1, kFile); }).find("'list[1]' is 2"),
            std::string::npos);
  EXPECT_NE(
      message_of([&] { optional_object(config, "list", kFile); }).find("an array of 2; it must be an object"),
      std::string::npos);
  EXPECT_NE(message_of([&] { require_string(config, "flag", kFile); }).find("is true; it must be a string"),
            std::string::npos);
}

TEST(JsonFile, BuildsTheSameTreeAsThePlainParser) {
  const std::string text =
      R"({"a": [1, -2, 3.5, "x\u00e9", true, null, {}, [], [[1]], {"b": {"c": [1e300]}}], "d": 18446744073709551615})";
  EXPECT_EQ(parse_json(text, kFile), json::parse(text));
  for (const char* scalar : {"1", "\"x\"", "null", "[]", "{}"})
    EXPECT_EQ(parse_json(scalar, kFile), json::parse(scalar));
}

TEST(JsonFile, DepthIsBounded) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(kJsonDepth), kFile));
  EXPECT_EQ(message_of([&] { parse_json(nested(kJsonDepth + 1), kFile); }),
            "config.json: values are nested deeper than 100 levels");
  EXPECT_NE(message_of([&] { parse_json(std::string(10'000'000, '['), kFile); }), "");
}

TEST(JsonFile, InvalidTextIsOneSentence) {
  for (const std::string text : {"", " ", "{", "nan", "[NaN]", "[Infinity]", "[1e999]", "{\"a\":1,}",
                                 "\"\xff\"", "1 2", "{\"a\":1,\"a\":2}", "[\"\\ud800\"]"}) {
    const std::string message = message_of([&] { parse_json(text, kFile); });
    EXPECT_EQ(message.find("config.json"), 0u) << text;
    EXPECT_EQ(message.find("[json"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace cairn::formats
