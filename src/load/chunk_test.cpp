#include "load/chunk.h"

#include <gtest/gtest.h>

namespace cairn::load {
namespace {

Chunk read(std::string_view json) {
  Chunk chunk;
  EXPECT_TRUE(read_chunk(json, chunk)) << json;
  return chunk;
}

TEST(Chunk, ReadsStreamedChat) {
  const auto role =
      read(R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]})");
  EXPECT_EQ(role.text_bytes, 0u);
  const auto piece = read(
      R"({"id":"x","choices":[{"finish_reason":null,"index":0,"delta":{"content":" h\u00e9"}}],"usage":null})");
  EXPECT_EQ(piece.text, " h\xc3\xa9");
  EXPECT_EQ(piece.text_bytes, 4u);
  EXPECT_EQ(piece.answer_tokens, -1);
  EXPECT_EQ(read(R"({"choices":[{"delta":{},"finish_reason":"length"}]})").finish_reason, "length");
  const auto thought = read(R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})");
  EXPECT_EQ(thought.text_bytes, 2u);
  EXPECT_EQ(thought.text, "");
  const auto call = read(
      R"({"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\""}}]}}]})");
  EXPECT_EQ(call.text_bytes, 4u);
}

TEST(Chunk, ReadsUsageOnlyWhereItStands) {
  const auto chunk = read(
      R"({"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19,"prompt_tokens_details":{"cached_tokens":8}}})");
  EXPECT_EQ(chunk.prompt_tokens, 12);
  EXPECT_EQ(chunk.answer_tokens, 7);
  EXPECT_EQ(chunk.cached_tokens, 8);
  const auto elsewhere = read(
      R"({"timings":{"prompt_tokens":5,"text":"no"},"content":"no","choices":[{"logprobs":{"content":[{"token":"t","text":"no"}]},"delta":{"content":"yes"}}]})");
  EXPECT_EQ(elsewhere.prompt_tokens, -1);
  EXPECT_EQ(elsewhere.text, "yes");
  EXPECT_EQ(elsewhere.text_bytes, 3u);
}

TEST(Chunk, ReadsCompletionsAndWholeAnswers) {
  EXPECT_EQ(read(R"({"choices":[{"text":" word","index":0,"logprobs":null,"finish_reason":null}]})").text,
            " word");
  const auto whole = read(
      R"({"choices":[{"message":{"role":"assistant","content":"one"},"finish_reason":"stop"},{"message":{"content":"two"}}],"usage":{"completion_tokens":2,"prompt_tokens":1}})");
  EXPECT_EQ(whole.text, "one");
  EXPECT_EQ(whole.text_bytes, 6u);
  EXPECT_EQ(whole.finish_reason, "stop");
}

TEST(Chunk, ReadsErrors) {
  EXPECT_EQ(read(R"({"error":{"code":400,"message":"too long","type":"x"}})").error, "too long");
  EXPECT_EQ(read(R"({"error":"plain"})").error, "plain");
  EXPECT_EQ(read(R"({"error":{}})").error, "error");
  EXPECT_EQ(read(R"({"error":null,"choices":[]})").error, "");
}

TEST(Chunk, SurvivesAnything) {
  Chunk chunk;
  for (const char* text : {"", "{", "[DONE]", "{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}", "nope"})
    EXPECT_FALSE(read_chunk(text, chunk)) << text;
  EXPECT_FALSE(read_chunk(std::string(1 << 20, '['), chunk));
  EXPECT_TRUE(read_chunk(std::string(1 << 16, '[') + std::string(1 << 16, ']'), chunk));
  EXPECT_EQ(read(R"({"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":-3}})").prompt_tokens,
            -1);
  for (const char* text : {"1", "null", "[]", "[[[[[[[[[[\"x\"]]]]]]]]]]", R"({"choices":{"delta":"x"}})",
                           R"({"choices":[[{"text":1}]],"usage":[1,2]})"})
    EXPECT_EQ(read(text).text_bytes, 0u) << text;
}

}  // namespace
}  // namespace cairn::load
