#include "text/answer/messages.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;

const AnswerFormat kHermes = AnswerFormat::detect("<tool_call>");
const TemplateTraits kPlain{.writes_calls = true, .tool_role = true};

std::string error_of(const std::string& messages, const TemplateTraits& traits = kPlain) {
  try {
    prepare_messages(Json::parse(messages), traits, kHermes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

Json prepared(const std::string& messages, const TemplateTraits& traits = kPlain) {
  return prepare_messages(Json::parse(messages), traits, kHermes);
}

TEST(Messages, ErrorsNameTheField) {
  EXPECT_EQ(error_of("{}"), "messages: expected a list, got object");
  EXPECT_EQ(error_of("[]"), "messages: empty, at least one message is needed");
  EXPECT_EQ(error_of("[7]"), "messages[0]: expected an object, got number");
  EXPECT_EQ(error_of(R"([{"content": "x"}])"),
            "messages[0].role: '' is none of system, developer, user, assistant, tool");
  EXPECT_EQ(error_of(R"([{"role": "bot"}])"),
            "messages[0].role: 'bot' is none of system, developer, user, assistant, tool");
  EXPECT_EQ(error_of(R"([{"role": 1}])"), "messages[0].role: expected a string, got number");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": 1}])"),
            "messages[0].content: expected a string, a list of parts or null, got number");
  EXPECT_EQ(
      error_of(R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}])"),
      "messages[0].content[1]: a part of type 'image_url', but only text is read here");
  EXPECT_EQ(error_of(R"([{"role": "user", "content": [{"type": "text"}]}])"),
            "messages[0].content[0].text: missing");
  EXPECT_EQ(error_of(R"([{"role": "assistant", "reasoning": 1}])"),
            "messages[0].reasoning: expected a string, got number");
  const std::string call = R"([{"role": "assistant", "tool_calls": [{"function": )";
  EXPECT_EQ(error_of(R"([{"role": "assistant", "tool_calls": {}}])"),
            "messages[0].tool_calls: expected a list, got object");
  EXPECT_EQ(error_of(R"([{"role": "assistant", "tool_calls": [{}]}])"),
            "messages[0].tool_calls[0].function: missing");
  EXPECT_EQ(error_of(call + R"({"arguments": "{}"}}]}])"),
            "messages[0].tool_calls[0].function.name: missing");
  EXPECT_EQ(error_of(call + R"({"name": "f", "arguments": "{\"a\": "}}]}])"),
            "messages[0].tool_calls[0].function.arguments: not JSON at byte 7");
  EXPECT_EQ(error_of(call + R"({"name": "f", "arguments": "[1]"}}]}])"),
            "messages[0].tool_calls[0].function.arguments: expected a JSON object, got array");
  const std::string deep = "{\"a\":" + std::string(500, '[') + std::string(500, ']') + "}";
  EXPECT_EQ(error_of(call + R"({"name": "f", "arguments": )" + deep + "}}]}]"),
            "messages[0].tool_calls[0].function.arguments: nested deeper than 128 levels");
}

TEST(Messages, ContentIsWhatTheTemplateReads) {
  const std::string parts =
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])";
  EXPECT_EQ(prepared(parts)[0]["content"], "a\nb");
  EXPECT_EQ(prepared(parts, {.content_parts = true})[0]["content"],
            Json::parse(R"([{"type": "text", "text": "a\nb"}])"));
  EXPECT_EQ(prepared(R"([{"role": "assistant", "content": null}])")[0]["content"], "");
  EXPECT_EQ(prepared(R"([{"role": "developer", "content": "x"}])")[0]["role"], "system");
  EXPECT_EQ(prepared(R"([{"role": "developer", "content": "x"}])", {.developer_role = true})[0]["role"],
            "developer");
  EXPECT_EQ(prepared(R"([{"role": "user", "content": "x", "more": 1}])")[0]["more"], 1)
      << "other fields stay";
}

TEST(Messages, ReasoningUnderAllItsNames) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const Json message =
        prepared(R"([{"role": "assistant", "content": "x", ")" + std::string(name) + R"(": "why"}])")[0];
    EXPECT_EQ(message["reasoning_content"], "why") << name;
    EXPECT_EQ(message["thinking"], "why") << name;
  }
  EXPECT_FALSE(
      prepared(R"([{"role": "assistant", "content": "x", "reasoning": null}])")[0].contains("reasoning"));
}

const std::string kTwoCalls = R"([{"role": "user", "content": "q"},
  {"role": "assistant", "content": "Hm.", "reasoning_content": "why", "tool_calls": [
    {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{\"n\": 1}"}},
    {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": {}}}]},
  {"role": "tool", "tool_call_id": "call_b", "content": "B"},
  {"role": "tool", "tool_call_id": "call_a", "content": "A"}])";

TEST(Messages, CallsAreWhatTheTemplateReads) {
  Json messages = prepared(kTwoCalls);
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[1]["tool_calls"][0]["function"]["arguments"], Json({{"n", 1}}));
  EXPECT_EQ(messages[2]["name"], "g");
  EXPECT_EQ(messages[3]["name"], "f");

  messages = prepared(kTwoCalls, {.writes_calls = true, .text_arguments = true, .tool_role = true});
  EXPECT_EQ(messages[1]["tool_calls"][0]["function"]["arguments"], "{\"n\":1}");

  messages = prepared(kTwoCalls, {.writes_calls = true, .short_ids = true, .tool_role = true});
  const std::string id = messages[1]["tool_calls"][0]["id"];
  EXPECT_EQ(id.size(), 9u);
  EXPECT_EQ(messages[3]["tool_call_id"], id);
  EXPECT_NE(messages[2]["tool_call_id"], id);

  messages = prepared(kTwoCalls, {.writes_calls = true, .calls_or_reasoning = true, .tool_role = true});
  EXPECT_EQ(messages[1]["thinking"], "why\n\nHm.");
  EXPECT_EQ(messages[1]["content"], "");

  messages = prepared(
      kTwoCalls, {.writes_calls = true, .null_content = true, .calls_or_content = true, .tool_role = true});
  ASSERT_EQ(messages.size(), 5u);
  EXPECT_EQ(messages[1]["content"], "Hm.");
  EXPECT_FALSE(messages[1].contains("tool_calls"));
  EXPECT_TRUE(messages[2]["content"].is_null());
}

TEST(Messages, OneCallAMessage) {
  const Json messages = prepared(kTwoCalls, {.writes_calls = true, .one_call = true, .tool_role = true});
  ASSERT_EQ(messages.size(), 5u);
  EXPECT_EQ(messages[1]["tool_calls"].size(), 1u);
  EXPECT_EQ(messages[1]["content"], "Hm.");
  EXPECT_EQ(messages[2]["content"], "A");
  EXPECT_EQ(messages[3]["tool_calls"][0]["function"]["name"], "g");
  EXPECT_EQ(messages[3]["content"], "");
  EXPECT_FALSE(messages[3].contains("reasoning_content"));
  EXPECT_EQ(messages[4]["content"], "B");
}

TEST(Messages, ATemplateWithoutCallsGetsThemAsTheModelWritesThem) {
  const Json messages = prepared(kTwoCalls, {});
  EXPECT_EQ(messages[1]["content"],
            "Hm.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\":1}}\n</tool_call>\n"
            "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>");
  EXPECT_EQ(messages[2]["role"], "user");
  EXPECT_THROW(prepare_messages(Json::parse(kTwoCalls), {}, AnswerFormat()), Error);
}

TEST(Messages, ResultsWithoutIdsFollowTheirCalls) {
  const Json messages = prepared(R"([
    {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]},
    {"role": "tool", "content": "A"}, {"role": "function", "content": "B"}])");
  EXPECT_EQ(messages[1]["tool_call_id"], messages[0]["tool_calls"][0]["id"]);
  EXPECT_EQ(messages[2]["name"], "g");
  EXPECT_NE(messages[0]["tool_calls"][0]["id"], messages[0]["tool_calls"][1]["id"]);
}

TEST(Tools, OneShapeForAll) {
  const Json want = Json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {}}}}}])");
  for (
      const char* tools :
      {R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"n": {}}}}}])",
       R"([{"name": "f", "parameters": {"type": "object", "properties": {"n": {}}}}])",
       R"([{"name": "f", "input_schema": {"type": "object", "properties": {"n": {}}}}])"})
    EXPECT_EQ(nlohmann::json::parse(prepare_tools(Json::parse(tools), {}).dump()),
              nlohmann::json::parse(want.dump()))
        << tools;
  EXPECT_TRUE(prepare_tools(nullptr, {}).is_null());
  EXPECT_TRUE(prepare_tools(Json::array(), {}).is_null());
  EXPECT_EQ(prepare_tools(Json::parse(R"([{"name": "f"}])"),
                          {.described_tools = true})[0]["function"]["description"],
            "");
  const auto error = [](const char* tools) -> std::string {
    try {
      prepare_tools(Json::parse(tools), {});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error("7"), "tools: expected a list, got number");
  EXPECT_EQ(error("[7]"), "tools[0]: expected an object, got number");
  EXPECT_EQ(error(R"([{"function": {}}])"), "tools[0].function.name: missing or not a string");
  EXPECT_EQ(error(R"([{"name": "f", "parameters": 1}])"),
            "tools[0].parameters: expected a JSON schema, got number");
}

TEST(ChatPrompts, RenderAndContinue) {
  const ChatTemplate source(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.tool_calls %}{{ "
      "m.tool_calls[0].function.arguments | tojson }}"
      "{% endif %}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
      "{% if messages[0].content == 'no' %}{{ raise_exception('not that') }}{% endif %}");
  const ChatPrompts prompts(source, kHermes, "<s>", "</s>");
  EXPECT_TRUE(prompts.traits().writes_calls);
  EXPECT_FALSE(prompts.traits().text_arguments);
  EXPECT_TRUE(prompts.traits().one_call);
  EXPECT_EQ(prompts.render({.messages = Json::parse(R"([{"role": "user", "content": "a"}])")}),
            "<user>a</><assistant>");
  EXPECT_EQ(
      prompts.render({.messages = Json::parse(
                          R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}])"),
                      .continue_last = true}),
      "<user>a</><assistant>b ");
  for (const char* messages :
       {R"([{"role": "user", "content": "no"}])", R"([{"role": "oops", "content": "no"}])"})
    try {
      prompts.render({.messages = Json::parse(messages)});
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::invalid_argument) << e.what();
    }
  try {
    prompts.render(
        {.messages = Json::parse(R"([{"role": "user", "content": "a"}])"), .variables = {{"messages", 1}}});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "chat_template_kwargs.messages: is set by the request itself");
  }
}

}  // namespace
}  // namespace cairn::text
