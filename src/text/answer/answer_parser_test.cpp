#include "text/answer/answer_parser.h"

#include <fmt/format.h>

#include <chrono>

#include "text/answer/answer_testing.h"
#include "text/answer/formats.h"
#include "text/answer/tag_pattern.h"
#include "text/constrain/piece_tokenizer_testing.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;

// A format by what its templates contain.
AnswerFormat format(std::string_view tool_row, std::string_view more = "") {
  std::string marks(more);
  if (const answer::ToolRow* row = answer::tool_row(tool_row))
    for (std::string_view mark : row->marks) marks += " " + std::string(mark);
  const AnswerFormat found = AnswerFormat::detect(marks);
  EXPECT_EQ(found.name(), tool_row);
  return found;
}

Json tools() {
  return Json::parse(R"([
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "s": {"type": "string"}, "n": {"type": "integer"}, "o": {"type": "object"}, "b": {"type": "boolean"},
        "u": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "e": {"enum": ["1", "2"]},
        "r": {"$ref": "#/$defs/text"}}, "$defs": {"text": {"type": "string"}}}}},
    {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}])");
}

struct Want {
  std::string reasoning = {}, content = {};
  std::vector<std::pair<std::string, std::string>> calls = {};
  bool unfinished = false;
};

void expect(const AnswerCase& answer, const Want& want) {
  SCOPED_TRACE(fmt::format("{}: {}", answer.format.name(), answer.text));
  const Parsed parsed = parse_whole(answer);
  EXPECT_EQ(parsed.reasoning, want.reasoning);
  EXPECT_EQ(parsed.content, want.content);
  ASSERT_EQ(parsed.calls.size(), want.calls.size()) << parsed;
  for (size_t i = 0; i < want.calls.size(); ++i) {
    EXPECT_EQ(parsed.calls[i].name, want.calls[i].first);
    EXPECT_EQ(parsed.calls[i].arguments, want.calls[i].second);
  }
  EXPECT_EQ(parsed.unfinished, want.unfinished);
  expect_same_for_every_split(answer);
}

void expect(std::string_view row, std::string text, const Want& want, std::string tail = "") {
  expect({format(row), std::move(tail), std::move(text), tools()}, want);
}

const std::string kCall = R"(<tool_call>
{"name": "f", "arguments": {"s": "x"}}
</tool_call>)";

TEST(AnswerParser, PlainTextPassesUntouched) {
  const std::string text = "  a <tool_call> b\n<think>x</think>\n\n ";
  expect({AnswerFormat(), "", text, tools()}, {.content = text});
  AnswerParser parser(AnswerFormat(), "", tools(), true, true);
  EXPECT_EQ(parser.add("abc <").content, "abc <") << "nothing to wait for";
}

TEST(AnswerParser, CallsBetweenText) {
  expect("hermes", "Let me.\n" + kCall + "\n" + kCall + "\n",
         {.content = "Let me.", .calls = {{"f", R"({"s": "x"})"}, {"f", R"({"s": "x"})"}}});
  expect("hermes", "A " + kCall + " B", {.content = "A\nB", .calls = {{"f", R"({"s": "x"})"}}});
  expect("hermes", "no call \n", {.content = "no call \n"});
}

TEST(AnswerParser, ArgumentsComeAsTheyAreWritten) {
  AnswerParser parser(format("hermes"), "", tools(), true, true, "request-1");
  EXPECT_TRUE(parser.add("<tool_call>\n{\"name\": \"f\", \"argum").empty());
  AnswerDelta delta = parser.add("ents\": {\"s\": \"on");
  ASSERT_EQ(delta.tool_calls.size(), 1u);
  EXPECT_EQ(delta.tool_calls[0].name, "f");
  EXPECT_EQ(delta.tool_calls[0].arguments, "{\"s\": \"on");
  EXPECT_EQ(delta.tool_calls[0].id.size(), 29u);
  delta = parser.add("e\"}");
  ASSERT_EQ(delta.tool_calls.size(), 1u);
  EXPECT_EQ(delta.tool_calls[0], (AnswerDelta::ToolCall{0, "", "", "e\"}"}));
  EXPECT_TRUE(parser.add("}\n</tool_call>").empty());
  EXPECT_TRUE(parser.finish().empty());

  AnswerParser xml(format("qwen3-coder"), "", tools(), true, true);
  delta = xml.add("<tool_call>\n<function=f>\n<parameter=s>\nHello wor");
  ASSERT_EQ(delta.tool_calls.size(), 1u);
  EXPECT_EQ(delta.tool_calls[0].arguments, "{\"s\": \"Hello wor") << "strings stream here too";
}

TEST(AnswerParser, TextIsHeldOnlyWhileItMayBeATag) {
  AnswerParser parser(format("hermes", "think>"), "", tools(), true, true);
  EXPECT_EQ(parser.add("a <tool").content, "a");
  EXPECT_EQ(parser.add("box> ").content, " <toolbox>");
  EXPECT_EQ(parser.finish().content, " ");
}

TEST(AnswerParser, Reasoning) {
  const AnswerFormat think = format("hermes", "think>");
  const Want want{.reasoning = "why\nso", .content = "Answer"};
  expect({think, "<|im_start|>assistant\n", "<think>\nwhy\nso\n</think>\n\nAnswer", tools()}, want);
  expect({think, "<|im_start|>assistant\n<think>\n", "why\nso\n</think>\n\nAnswer", tools()}, want);
  expect({think, "assistant\n<think>\n\n</think>\n\n", "Answer", tools()}, {.content = "Answer"});
  // The prompt has closed it, and the model closes it again, or starts once more.
  expect({think, "assistant\n<think></think>", "</think>\nAnswer", tools()}, {.content = "Answer"});
  expect({think, "assistant\n<think></think>", "<think>why\nso</think>Answer", tools()}, want);
  // Only the start of an answer opens reasoning; later it is quoted.
  expect({think, "", "Write <think> first.", tools()}, {.content = "Write <think> first."});
  expect({think, "", "<think>cut", tools()}, {.reasoning = "cut"});
  expect({think, "", "<think></think>", tools()}, {});
  // A call that is only thought of is not made.
  expect({think, "<think>", "I could " + kCall + "</think>No.", tools()},
         {.reasoning = "I could " + kCall, .content = "No."});
  expect({think, "<think>", "Yes.</think>" + kCall, tools()},
         {.reasoning = "Yes.", .calls = {{"f", R"({"s": "x"})"}}});
}

TEST(AnswerParser, ReasoningOffKeepsItAsContent) {
  const AnswerFormat think = format("hermes", "think>");
  expect({think, "", "<think>why " + kCall + "</think> Answer", tools(), false, true},
         {.content = "<think>why " + kCall + "</think> Answer"});
  expect({think, "", kCall, tools(), true, false}, {.content = kCall});
}

TEST(AnswerParser, ABudgetThatEndsThinkingIsLikeAnyEnd) {
  const struct {
    std::string_view row, more, tail;
  } formats[] = {{"hermes", "think>", "<think>\n"},
                 {"seed-oss", "seed:think", "<seed:think>"},
                 {"command-r7b", "<|START_THINKING|>", "<|START_THINKING|>"},
                 {"gemma-4", "<|channel>thought", "<|channel>thought\n"},
                 {"tool-calls", "[BEGIN FINAL RESPONSE]", "Here are my reasoning steps:\n"},
                 {"harmony", "<|message|>", "<|start|>assistant<|channel|>analysis<|message|>"},
                 {"muse", "to=self <|message|>", "<|start|>assistant to=self<|message|>"}};
  for (const auto& [row, more, tail] : formats) {
    const AnswerFormat one = format(row, more);
    AnswerParser parser(one, tail, tools(), true, true);
    EXPECT_TRUE(parser.in_reasoning()) << row;
    Parsed parsed;
    parsed.add(parser.add("thinking and thi"));
    EXPECT_TRUE(parser.in_reasoning()) << row;
    parsed.add(parser.add(one.reasoning_end_text()));
    parsed.add(parser.add("Answer"));
    EXPECT_FALSE(parser.in_reasoning()) << row;
    parsed.add(parser.finish());
    EXPECT_EQ(parsed.reasoning, "thinking and thi") << row;
    EXPECT_EQ(parsed.content, "Answer") << row;
  }
}

TEST(AnswerParser, JsonCalls) {
  // Keys in any order, unknown keys, nesting, arguments as a string, none at all.
  const Want want{.calls = {{"f", R"({"n":1})"}}};
  for (const char* call :
       {R"({"name":"f","arguments":{"n":1}})", R"({"arguments":{"n":1},"name":"f"})",
        R"({"id":"7","type":"function","function":{"name":"f","arguments":{"n":1}}})",
        R"({"name":"f","parameters":{"n":1},"x":[{"name":"g"}]})",
        R"({ "name" : "f" , "arguments" : "{\"n\":1}" })", R"({"tool_name":"f","parameters":{"n":1}})"})
    expect("hermes", "<tool_call>" + std::string(call) + "</tool_call>", want);
  expect("hermes", R"(<tool_call>{"name":"f"}</tool_call>)", {.calls = {{"f", "{}"}}});
  expect("hermes", R"(<tool_call>{"name":"f","arguments":null}</tool_call>)", {.calls = {{"f", "{}"}}});
  expect("hermes", "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"a\nb\"}}</tool_call>",
         {.calls = {{"f", "{\"s\":\"a\\nb\"}"}}});
  expect("hermes", R"(<tool_call>{"name":"f","arguments":{"s":"</tool_call> } \" {"}}</tool_call>)",
         {.calls = {{"f", R"({"s":"</tool_call> } \" {"})"}}});
  expect("hermes", R"(<tool_call>{'name':'f','arguments':{'s':'x'}}</tool_call>)",
         {.content = R"(<tool_call>{'name':'f','arguments':{'s':'x'}}</tool_call>)"});
  expect("hermes",
         R"(<tool_call>{"name":"f","arguments":{'b': True, 'u': None, n: 1, "l": [1, 2,],}}</tool_call>)",
         {.calls = {{"f", R"({"b": true, "u": null, "n": 1, "l": [1, 2]})"}}});
}

TEST(AnswerParser, ListsOfCalls) {
  const Want want{.calls = {{"f", R"({"n": 1})"}, {"g", "{}"}}};
  const std::string list = R"([{"name": "f", "arguments": {"n": 1}}, {"name": "g", "arguments": {}}])";
  expect("tool-calls", "<tool_calls>" + list + "</tool_calls>", want);
  expect("tool-calls",
         "<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n{\"name\": \"g\", \"arguments\": "
         "{}}\n</tool_calls>",
         want);
  expect("nemotron", "<TOOLCALL>" + list + "</TOOLCALL>", want);
  expect("mistral", "[TOOL_CALLS]" + list, want);
  expect("mistral", "[TOOL_CALLS] " + list + " text", {.content = "text", .calls = want.calls});
  expect("firefunction", "Hm. functools" + list, {.content = "Hm.", .calls = want.calls});
  expect("granite-3", "<|tool_call|>" + list, want);
  expect("tool-calls", "<tool_calls>[]</tool_calls>", {.content = "<tool_calls>[]</tool_calls>"});
}

TEST(AnswerParser, MistralNamesAndIds) {
  expect("mistral-args", "[TOOL_CALLS]f[ARGS]{\"n\": 1}[TOOL_CALLS]g[ARGS]{}",
         {.calls = {{"f", "{\"n\": 1}"}, {"g", "{}"}}});
  const AnswerCase with_id{format("mistral-args"), "", "[TOOL_CALLS]f[CALL_ID]abc123XYZ[ARGS]{}", tools()};
  expect(with_id, {.calls = {{"f", "{}"}}});
  EXPECT_EQ(parse_whole(with_id).calls[0].id, "abc123XYZ");
  const AnswerCase without{format("mistral-args"), "", "[TOOL_CALLS]f[ARGS]{}", tools()};
  const std::string id = parse_whole(without).calls[0].id;
  EXPECT_EQ(id.size(), 9u);
  EXPECT_TRUE(std::all_of(id.begin(), id.end(), [](unsigned char c) { return std::isalnum(c); }));
  const AnswerCase kimi{
      format("kimi-k2"), "",
      "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:3<|tool_call_argument_begin|>{}<|tool_"
      "call_end|><|tool_calls_section_end|>",
      tools()};
  expect(kimi, {.calls = {{"f", "{}"}}});
  EXPECT_EQ(parse_whole(kimi).calls[0].id, "functions.f:3");
}

TEST(AnswerParser, LlamaCallsNeedNoTagButAKnownTool) {
  expect("llama3-json", R"({"name": "f", "parameters": {"n": 1}})", {.calls = {{"f", R"({"n": 1})"}}});
  expect("llama3-json", R"(<|python_tag|>{"name": "f", "parameters": {"n": 1}})",
         {.calls = {{"f", R"({"n": 1})"}}});
  expect("llama3-json", R"({"name": "f", "parameters": {}}; {"name": "get_time", "parameters": {}})",
         {.calls = {{"f", "{}"}, {"get_time", "{}"}}});
  expect("llama3-json", R"(<|python_tag|>f.call(s="x", n=1))", {.calls = {{"f", R"({"s": "x", "n": 1})"}}});
  for (const char* text :
       {R"({"name": "Bob", "parameters": {}})", R"({"city": "Rome"})", R"([1, 2])",
        R"(Use {"name": "f", "parameters": {}})", "{}", "<|python_tag|>print('x')", R"({"name": "f")"})
    expect("llama3-json", text, {.content = text});
}

TEST(AnswerParser, TaggedParameters) {
  const std::string typed =
      "{\"s\": \"1\", \"n\": 2, \"o\": {\"k\": [true]}, \"b\": true, \"u\": null, \"e\": \"1\", \"r\": "
      "\"3\", \"x\": 4}";
  const auto parameters = [](const std::string& begin, const std::string& middle, const std::string& end) {
    std::string text;
    for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"s", "1"},
                                                                                     {"n", "2"},
                                                                                     {"o", "{\"k\": [true]}"},
                                                                                     {"b", "true"},
                                                                                     {"u", "null"},
                                                                                     {"e", "1"},
                                                                                     {"r", "3"},
                                                                                     {"x", "4"}})
      text += begin + key + middle + value + end;
    return text;
  };
  expect("qwen3-coder",
         "<tool_call>\n<function=f>\n" + parameters("<parameter=", ">\n", "\n</parameter>\n") +
             "</function>\n</tool_call>",
         {.calls = {{"f", typed}}});
  expect("glm",
         "<tool_call>f\n" + parameters("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n") +
             "</tool_call>",
         {.calls = {{"f", typed}}});
  expect("minimax-m2",
         "<minimax:tool_call>\n<invoke name=\"f\">\n" +
             parameters("<parameter name=\"", "\">", "</parameter>\n") +
             "</invoke>\n<invoke name=\"get_time\">\n</invoke>\n</minimax:tool_call>",
         {.calls = {{"f", typed}, {"get_time", "{}"}}});
  expect("deepseek-dsml",
         "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"n\" "
         "string=\"true\">7</｜DSML｜parameter>\n"
         "<｜DSML｜parameter name=\"s\" "
         "string=\"false\">[8]</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
         {.calls = {{"f", "{\"n\": \"7\", \"s\": [8]}"}}});
  expect("seed-oss",
         "<seed:tool_call>\n<function=f>\n<parameter=o>{'k': [True, None], 'q': "
         "'a\"b'}</parameter>\n</function>\n</seed:tool_call>",
         {.calls = {{"f", "{\"o\": {\"k\": [true, null], \"q\": \"a\\\"b\"}}"}}});
  expect("minicpm",
         "<function name=\"f\"><param name=\"s\"><![CDATA[a</param>b]]></param><param "
         "name=\"n\">3</param></function>",
         {.calls = {{"f", "{\"s\": \"a</param>b\", \"n\": 3}"}}});
  expect("glm", "<tool_call>get_time</tool_call>", {.calls = {{"get_time", "{}"}}});
  expect("hermes",
         "<tool_call>\n<function=f>\n<parameter=s>\n\n\nx\n\n</parameter>\n</function>\n</tool_call>",
         {.calls = {{"f", "{\"s\": \"\\n\\nx\\n\"}"}}});
}

TEST(AnswerParser, AValueMayContainItsEndTag) {
  expect("qwen3-coder",
         "<tool_call>\n<function=f>\n<parameter=s>\n<a></parameter> and "
         "</function>\n</parameter>\n</function>\n</tool_call>",
         {.calls = {{"f", "{\"s\": \"<a></parameter> and </function>\"}"}}});
}

TEST(AnswerParser, NamedJson) {
  expect("functionary", "Hm.<function=f>{\"n\": 1}</function><function=get_time>{}</function>",
         {.content = "Hm.", .calls = {{"f", "{\"n\": 1}"}, {"get_time", "{}"}}});
  expect("deepseek-v3",
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\": "
         "1}\n```<｜tool▁call▁end｜>\n"
         "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{}\n```<｜tool▁call▁end｜><"
         "｜tool▁calls▁end｜>",
         {.calls = {{"f", "{\"n\": 1}"}, {"get_time", "{}"}}});
  expect("gemma-4", "<|tool_call>call:f{s:<|\"|>a \"b\" \\ c<|\"|>,n:3,o:{k:[1,true,None]}}<tool_call|>",
         {.calls = {{"f", R"({"s":"a \"b\" \\ c","n":3,"o":{"k":[1,true,null]}})"}}});
  expect("gigachat-3",
         "Hm.<|message_sep|>\n\nfunction call<|role_sep|>\n{\"name\": \"f\", \"arguments\": {}}",
         {.content = "Hm.", .calls = {{"f", "{}"}}});
}

TEST(AnswerParser, PythonCalls) {
  expect("lfm2",
         "<|tool_call_start|>[f(s='it\\'s', n=-1.5e3, o={'k': (1, True)}), get_time()]<|tool_call_end|>Done.",
         {.content = "Done.",
          .calls = {{"f", R"({"s": "it's", "n": -1.5e3, "o": {"k": [1, true]}})"}, {"get_time", "{}"}}});
  expect("lfm2", "<|tool_call_start|>[{\"name\": \"f\", \"arguments\": {}}]<|tool_call_end|>",
         {.calls = {{"f", "{}"}}});
  expect("lfm2", "<|tool_call_start|>[f('x')]<|tool_call_end|>",
         {.content = "<|tool_call_start|>[f('x')]<|tool_call_end|>"});
}

TEST(AnswerParser, CommandR) {
  expect("command-r", "Action:\n```json\n[\n  {\"tool_name\": \"f\", \"parameters\": {\"n\": 1}}\n]```",
         {.calls = {{"f", "{\"n\": 1}"}}});
  expect("command-r", "Action: ```json\n[{\"tool_name\": \"directly-answer\", \"parameters\": {}}]\n```Hello",
         {.content = "Hello"});
  const AnswerFormat r7b = format("command-r7b", "<|START_THINKING|>");
  expect({r7b, "", "<|START_THINKING|>why<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>", tools()},
         {.reasoning = "why", .content = "Yes."});
}

TEST(AnswerParser, Harmony) {
  const AnswerFormat harmony = format("harmony", "<|message|>");
  const std::string tail = "<|start|>assistant";
  expect(
      {harmony, tail,
       "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
       tools()},
      {.reasoning = "why", .content = "Yes."});
  const Want want{.reasoning = "why", .calls = {{"f", "{\"n\": 1}"}}};
  for (const char* header : {"<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
                             " to=functions.f<|channel|>commentary json<|message|>",
                             " to=functions.f<|channel|>analysis<|message|>"})
    expect({harmony, tail,
            "<|channel|>analysis<|message|>why<|end|><|start|>assistant" + std::string(header) +
                "{\"n\": 1}<|call|>",
            tools()},
           want);
  expect({harmony, tail,
          "<|channel|>commentary<|message|>First.<|end|><|start|>assistant<|channel|>final<|message|>Then.",
          tools()},
         {.content = "First.\nThen."});
  expect({harmony, tail + "<|channel|>final<|message|>", "Yes.", tools()}, {.content = "Yes."});
  expect({harmony, tail, "No channels at all.", tools()}, {.content = "No channels at all."});
  expect({harmony, tail, "<|channel|>anal", tools()}, {});
  expect({harmony, tail, "<|channel|>commentary to=python<|message|>print(1)<|call|>", tools()},
         {.content = "print(1)"});
}

TEST(AnswerParser, Muse) {
  const AnswerFormat muse = format("muse", "to=self <|message|>");
  expect({muse, "<|start|>assistant",
          " to=self<|message|>why<|eom|><|start|>assistant "
          "to=f<|message|><atem:function_calls>\n<atem:invoke name=\"f\">\n"
          "<atem:parameter "
          "name=\"n\">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant "
          "to=user<|message|>Hi",
          tools()},
         {.reasoning = "why", .content = "Hi", .calls = {{"f", "{\"n\": 3}"}}});
}

// What is no call comes back as it was written.
TEST(AnswerParser, WhatIsNoCallIsContent) {
  for (const char* text :
       {"<tool_call>", "<tool_call>\n", "<tool_call>hello</tool_call>", "<tool_call>{}</tool_call>",
        "<tool_call>{\"name\": 1}</tool_call>", "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"a b\"}</tool_call>", "<tool_call>{\"nam", "<tool_call>{\"name\": \"f\"",
        "<tool_call>{\"name\": \"f\", \"arg", "<tool_call>\n{\"arguments\": {\"a\": 1}}", "</tool_call>",
        "a <tool_call> b <tool_call> c", "<tool_call>[]</tool_call>", "<tool_call>{\"x\" 1}",
        "<tool_call> <function=>", "<tool_call><function=f", "<tool_call><function=f>",
        "<tool_call><function=f>x</function></tool_call>"})
    expect("hermes", text, {.content = text});
  for (const char* text : {"[TOOL_CALLS]", "[TOOL_CALLS][", "[TOOL_CALLS]f", "[TOOL_CALLS]f[ARGS]",
                           "[TOOL_CALLS]f[ARGS]x", "[TOOL_CALLS]f g[ARGS]{}"})
    expect("mistral-args", text, {.content = text});
  const std::string long_name(2000, 'n');
  expect("functionary", "<function=" + long_name + ">{}</function>",
         {.content = "<function=" + long_name + ">{}</function>"});
}

TEST(AnswerParser, ACallThatBeganStaysOne) {
  expect("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"abc",
         {.calls = {{"f", "{\"s\": \"abc"}}, .unfinished = true});
  expect("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 12",
         {.calls = {{"f", "{\"n\": 12"}}, .unfinished = true});
  expect("qwen3-coder", "<tool_call><function=f><parameter=s>\nabc\n</para",
         {.calls = {{"f", "{\"s\": \"abc\\n</para"}}, .unfinished = true});
  expect("qwen3-coder", "<tool_call><function=f><parameter=n>\n12",
         {.calls = {{"f", "{\"n\": 12"}}, .unfinished = true});
  expect("qwen3-coder", "<tool_call><function=f><parameter=n>\n12\n</parameter>\n<para",
         {.calls = {{"f", "{\"n\": 12"}}, .unfinished = true});
  // Rubbish behind the arguments does not undo the call, and is not lost.
  expect("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {} oops}</tool_call>",
         {.content = "oops}</tool_call>", .calls = {{"f", "{}"}}});
  expect("hermes", kCall.substr(0, kCall.size() - 12) + " and more",
         {.content = "and more", .calls = {{"f", R"({"s": "x"})"}}});
}

TEST(AnswerParser, IdsFollowFromSeedAndIndex) {
  const auto ids = [](std::string_view seed) {
    AnswerParser parser(format("hermes"), "", tools(), true, true, seed);
    Parsed parsed;
    parsed.add(parser.add(kCall + kCall));
    parsed.add(parser.finish());
    EXPECT_EQ(parser.tool_calls(), 2);
    return parsed.calls[0].id + " " + parsed.calls[1].id;
  };
  EXPECT_EQ(ids("a"), ids("a"));
  EXPECT_NE(ids("a"), ids("b"));
  const std::string both = ids("a");
  EXPECT_NE(both.substr(0, 29), both.substr(30));
  EXPECT_TRUE(both.starts_with("call_"));
}

// Every format's own call, cut and damaged in every way: never an exception, the same for every split, and
// what is cut before the call began comes back whole.
TEST(AnswerParser, DamagedCalls) {
  const Json calls = Json::parse(
      R"([{"function": {"name": "f", "arguments": {"s": "a<b\n", "n": 3, "o": {"k": [1, null]}}}}])");
  std::mt19937 random(3);
  for (const answer::ToolRow& row : answer::tool_rows()) {
    if (row.name == "hermes" && row.marks[0] == "SmolLM") continue;
    const AnswerFormat one = format(row.name, row.name == "harmony" ? "<|message|>"
                                              : row.name == "muse"  ? "to=self <|message|>"
                                                                    : "think>");
    const auto text = one.write_calls(calls);
    if (!text) continue;
    SCOPED_TRACE(*text);
    const std::string before = row.bare ? "" : "Hm. ";
    const Parsed alone = parse_whole({one, "", *text, tools()});
    ASSERT_EQ(alone.calls.size(), 1u) << alone;
    EXPECT_EQ(nlohmann::json::parse(alone.calls[0].arguments),
              nlohmann::json::parse(calls[0]["function"]["arguments"].dump()));
    expect({one, "", before + *text, tools()},
           {.content = row.bare ? "" : "Hm.", .calls = {{"f", alone.calls[0].arguments}}});
    for (int round = 0; round < 40; ++round) {
      std::string damaged = before + *text;
      if (round % 2 == 0) damaged.resize(random() % damaged.size());
      if (round % 4 != 0 && !damaged.empty()) damaged.erase(random() % damaged.size(), 1 + random() % 3);
      if (round % 3 == 0 && !damaged.empty())
        damaged.insert(random() % damaged.size(), 1, "{}<>\"[]\\,:"[random() % 10]);
      const AnswerCase answer{one, "", damaged, tools()};
      const Parsed whole = parse_whole(answer);
      ASSERT_EQ(parse_in_pieces(answer, [](size_t) { return 1; }), whole) << damaged;
      ASSERT_EQ(parse_in_pieces(answer, [&](size_t) { return 1 + random() % 5; }), whole) << damaged;
      if (whole.calls.empty()) {
        ASSERT_EQ(whole.content, damaged);
      }
    }
  }
}

TEST(AnswerParser, LongAnswersTakeLinearTime) {
  AnswerParser parser(format("hermes", "think>"), "", tools(), true, true);
  std::string open = "<tool_call>{\"x\": \"";
  parser.add(open);
  for (int i = 0; i < 300'000; ++i) parser.add("<too");
  EXPECT_EQ(parser.finish().content.size(), open.size() + 1'200'000);
  AnswerParser spaces(format("hermes"), "", tools(), true, true);
  for (int i = 0; i < 300'000; ++i) spaces.add(" ");
  EXPECT_EQ(spaces.finish().content.size(), 300'000u);
}

// Whitespace may stand in many places, and none of them is read again for every piece.
TEST(AnswerParser, FloodsOfWhitespaceTakeLinearTime) {
  const std::string dsml = "<｜DSML｜function_calls><｜DSML｜invoke name=\"f\">";
  const std::vector<std::pair<std::string_view, std::string>> starts = {
      {"hermes", "<tool_call>"},
      {"hermes", "<tool_call>{"},
      {"hermes", "<tool_call>{\"name\":"},
      {"hermes", "<tool_call>{\"name\":\"f\",\"arguments\":{"},
      {"qwen3-coder", "<tool_call><function="},
      {"qwen3-coder", "<tool_call><function=f"},
      {"qwen3-coder", "<tool_call><function=f>"},
      {"qwen3-coder", "<tool_call><function=f><parameter="},
      {"qwen3-coder", "<tool_call><function=f><parameter=n>"},
      {"qwen3-coder", "<tool_call><function=f><parameter=s>x</parameter>"},
      {"deepseek-dsml", dsml},
      {"functionary", "<function=f>"},
      {"functionary", "<function=f>{}"},
      {"lfm2", "<|tool_call_start|>[f("},
      {"lfm2", "<|tool_call_start|>[f(s"},
      {"lfm2", "<|tool_call_start|>[f(s="},
      {"mistral-args", "[TOOL_CALLS]f"},
      {"mistral-args", "[TOOL_CALLS]f[CALL_ID]"},
      {"gemma-4", "<|tool_call>call:f{"},
      {"command-r", "Action:"}};
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& [row, start] : starts) {
    AnswerParser parser(format(row), "", tools(), true, true);
    parser.add(start);
    for (int i = 0; i < 50'000; ++i) parser.add("\n");
    parser.finish();
    const AnswerCase flood{format(row), "", start + std::string(700, ' ') + "x</tool_call>", tools()};
    ASSERT_EQ(parse_in_pieces(flood, [](size_t) { return 1; }), parse_whole(flood)) << start;
  }
  // Linear is some 20 ms; reading again from the start would be 25 G steps.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(AnswerFormat, SpecialTokensThatTheParserSees) {
  const auto tokenizer = testing::PieceTokenizer::bytes_and(
      {"<think>"},
      {"<|im_start|>", "<tool_call>", "</tool_call>", "<|start|>", "<|channel|>", "<|message|>"});
  const auto texts = [&](std::string_view chat_template) {
    const AnswerFormat found = AnswerFormat::detect(chat_template, tokenizer);
    std::string text;
    for (TokenId id : found.visible_special()) text += tokenizer.piece(id);
    return text;
  };
  EXPECT_EQ(texts("<tool_call>"), "<tool_call></tool_call>");
  EXPECT_EQ(texts("<|channel|> <|message|> functions."), "<|start|><|channel|><|message|><|end|>");
  // A template that says nothing, and a vocabulary that does.
  EXPECT_EQ(AnswerFormat::detect("{{ messages }}", tokenizer).name(), "hermes");
  EXPECT_EQ(AnswerFormat::detect("{{ messages }}").name(), "plain");
}

}  // namespace
}  // namespace cairn::text
