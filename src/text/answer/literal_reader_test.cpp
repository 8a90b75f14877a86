#include "text/answer/literal_reader.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace cairn::text::answer {
namespace {

struct Read {
  std::string json, rest;
  bool complete;
};

Read read(std::string_view text, size_t piece) {
  LiteralReader reader;
  Read result{"", "", false};
  size_t at = 0;
  for (size_t end = std::min(piece, text.size());; end = std::min(end + piece, text.size())) {
    Cursor in{text.substr(0, end), at, end == text.size()};
    result.complete = reader.read(in, result.json);
    if (result.complete || end == text.size()) break;
  }
  result.rest = text.substr(at);
  return result;
}

void expect(std::string_view text, std::string_view json, std::string_view rest = "", bool complete = true) {
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{3}, text.size() + 1}) {
    const Read got = read(text, piece);
    EXPECT_EQ(got.json, json) << text << " by " << piece;
    EXPECT_EQ(got.rest, rest) << text << " by " << piece;
    EXPECT_EQ(got.complete, complete) << text << " by " << piece;
  }
}

TEST(LiteralReader, JsonStaysAsItIs) {
  for (
      const char* json :
      {R"({"a": [1, -2.5e+3, true, false, null], "b" : {"c": "d\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"}, "e": {}, "f": [ ]})",
       "[]", "\"\"", "{ }"})
    expect(json, json);
  expect("{} rest", "{}", " rest");
  expect("12,", "12", ",");
  expect("12", "12");
  expect("true}", "true", "}");
  expect("\"a\"b", "\"a\"", "b");
}

TEST(LiteralReader, WhatElseModelsWrite) {
  expect("{'a': 'it\\'s \"x\"'}", "{\"a\": \"it's \\\"x\\\"\"}");
  expect("{a: True, 'b': (1, None,), }", "{\"a\": true, \"b\": [1, null] }");
}

TEST(LiteralReader, CommasBeforeClosingBracketsGo) {
  expect("[1, 2, ]", "[1, 2 ]");
  expect("{\"a\": 1,}", "{\"a\": 1}");
}

TEST(LiteralReader, Escapes) {
  expect(R"("\x41\101\a\v\'\q\u00e9\U0001F600")", R"("A)"
                                                  "A\\u0007\\u000b'\\\\q\\u00e9😀\"");
  expect("\"a\nb\x01\"", "\"a\\nb\\u0001\"");
  expect(R"("\x4")", R"("\\x4")");
  expect(R"("\ud83d\ude00")", R"("\ud83d\ude00")");
}

TEST(LiteralReader, GemmasQuotes) {
  expect("{k:<|\"|>a \"b\" <c> \\ <|x<|\"|>,n:1}", R"({"k":"a \"b\" <c> \\ <|x","n":1})");
  expect("<x>,", "\"<x>\"", ",");
}

TEST(LiteralReader, WordsThatAreNoValuesBecomeStrings) {
  expect("{\"a\": nan, \"b\": 0x1F, \"c\": .5, \"d\": 1_000, \"e\": é}",
         R"({"a": "nan", "b": "0x1F", "c": ".5", "d": "1_000", "e": "é"})");
}

TEST(LiteralReader, WhatIsCutIsWrittenAsFarAsItCame) {
  expect("{\"a\": 12", "{\"a\": 12", "", false);
  expect("{\"a\": \"x", "{\"a\": \"x", "", false);
  expect("[1, ", "[1, ", "", false);
  expect("{k:<|\"|>a<|", "{\"k\":\"a<|", "", false);
}

TEST(LiteralReader, BracketsThatDoNotPairEndSomewhere) {
  expect("{\"a\": ]}", "{\"a\": ]", "}");
  expect("[(1})]", "[[1})", "]");
}

TEST(LiteralReader, DepthCostsNoStack) {
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(read(deep, deep.size()).json, deep);
}

TEST(StringDecoder, TextOfAString) {
  const auto decode = [](std::string_view text) {
    StringDecoder decoder;
    std::string out;
    size_t at = 0;
    for (size_t end = 1; end <= text.size(); ++end) {
      Cursor in{text.substr(0, end), at, end == text.size()};
      if (decoder.read(in, out)) break;
    }
    return out + "|" + std::string(text.substr(at));
  };
  EXPECT_EQ(decode(R"("a\"b\\\/\n\u00e9\ud83d\ude00x"y)"), "a\"b\\/\né😀x|y");
  EXPECT_EQ(decode(R"("\ud83dx\ude00")"), "\uFFFDx\uFFFD|");
  EXPECT_EQ(decode(R"("\u12zz\q")"), R"(\u12zz\q|)");
  EXPECT_EQ(decode(R"("\u1)"), R"(\u1|)");
}

TEST(JsonValue, TypesOfPlainText) {
  EXPECT_EQ(json_value("3", kString), "\"3\"");
  EXPECT_EQ(json_value("3", kNumber), "3");
  EXPECT_EQ(json_value(" 3\n", kNumber), "3");
  EXPECT_EQ(json_value("3", 0), "3");
  EXPECT_EQ(json_value("3", kString | kNull), "\"3\"");
  EXPECT_EQ(json_value("null", kString | kNull), "null");
  EXPECT_EQ(json_value("3", kString | kNumber), "3");
  EXPECT_EQ(json_value("abc", kNumber), "\"abc\"");
  EXPECT_EQ(json_value("True", kBoolean), "true");
  EXPECT_EQ(json_value("{'a': None}", kObject), "{\"a\": null}");
  EXPECT_EQ(json_value("{'a': None} x", kObject), "\"{'a': None} x\"");
  EXPECT_EQ(json_value("", 0), "\"\"");
  EXPECT_EQ(json_value("a\"b\n", 0), "\"a\\\"b\\n\"");
  EXPECT_EQ(json_value("\"quoted\"", kString | kNull), "\"\\\"quoted\\\"\"");
}

}  // namespace
}  // namespace cairn::text::answer
