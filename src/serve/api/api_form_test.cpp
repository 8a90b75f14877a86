// Answers of a given form, tool calls and reasoning. A pattern that allows one text only makes the model
// write it, so that what clients hear of an answer can be compared with a recorded transcript, byte for byte
// but for ids and times.
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>

#include "serve/api/api_testing.h"

namespace cairn::serve {
namespace {

using namespace testing;

// As Qwen's: reasoning is not opened, calls are Hermes'.
constexpr const char* kTemplate =
    "{% if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "For each call give <tool_call>\n{\"name\": <name>, \"arguments\": <arguments>}\n</tool_call><|end|>{% "
    "endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'tool' %}<tool_response>{% "
    "endif %}"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ message.content }}{% if message.tool_calls %}{% for call in message.tool_calls %}<tool_call>\n"
    "{\"name\": \"{{ call.function.name }}\", \"arguments\": {{ call.function.arguments | tojson "
    "}}}\n</tool_call>"
    "{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

ApiServer& server() {
  static ApiServer running{std::optional<std::string>(kTemplate)};
  return running;
}

Json weather_tool() {
  return Json::parse(R"({"type": "function", "function": {"name": "weather", "description": "of a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string", "maxLength": 8},
      "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["place", "days"],
      "additionalProperties": false}}})");
}

Json request(int max_tokens = 300) {
  return {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})},
          {"max_tokens", max_tokens},
          {"seed", 3}};
}

// A regular expression that this text alone matches.
std::string only(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}/-").find(c) != std::string_view::npos) pattern += '\\';
    if (c == '\n')
      pattern += "\\n";
    else
      pattern += c;
  }
  return pattern;
}

Json post(std::string_view path, const Json& body, int status = 200) {
  const auto answer = server().post(path, body.dump());
  EXPECT_EQ(answer.status, status) << answer.body;
  return parsed(answer);
}

// Ids by order of appearance, times zero, bits of floats gone.
std::string normalised(std::string text) {
  static const std::regex ids(R"((chatcmpl-|cmpl-|msg_|resp_|rs_|fc_|call_|toolu_|req-)[A-Za-z0-9]{8,})");
  std::map<std::string, std::string> seen;
  std::string out;
  std::smatch match;
  while (std::regex_search(text, match, ids)) {
    out += match.prefix();
    const auto [place, is_new] =
        seen.try_emplace(match.str(), fmt::format("{}{}", match[1].str(), seen.size() + 1));
    (void)is_new;
    out += place->second;
    text = match.suffix();
  }
  out += text;
  out = std::regex_replace(out, std::regex(R"re("(created|created_at)":\d+)re"), "\"$1\":0");
  out = std::regex_replace(out, std::regex(R"re(cairn-\d+\.\d+\.\d+)re"), "cairn-0.0.0");
  // How the model divides the text into tokens is its own affair, and so is what the cache had.
  out = std::regex_replace(
      out,
      std::regex(
          R"re("(prompt_tokens|completion_tokens|total_tokens|cached_tokens|input_tokens|output_tokens|cache_read_input_tokens|reasoning_tokens)":\d+)re"),
      "\"$1\":0");
  return out;
}

// CAIRN_RECORD=1 writes the file instead.
void expect_recorded(const std::string& name, const std::string& got) {
  const std::string path = std::string(CAIRN_SOURCE_DIR) + "/src/serve/api/testdata/" + name;
  ASSERT_GT(got.size(), 300u) << got;
  if (std::getenv("CAIRN_RECORD")) {
    std::ofstream(path) << normalised(got);
    return;
  }
  std::ifstream file(path);
  ASSERT_TRUE(file) << path;
  std::stringstream want;
  want << file.rdbuf();
  EXPECT_EQ(normalised(got), want.str()) << name;
}

TEST(Form, ObjectsSchemasPatternsAndGrammars) {
  const auto content = [](const Json& answer) {
    return answer["choices"][0]["message"]["content"].get<std::string>();
  };
  Json body = request();
  body["response_format"] =
      Json::parse(R"({"type": "json_schema", "json_schema": {"name": "cat", "strict": true, "schema":
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "maximum": 30, "minimum": 0}},
     "required": ["name", "age"], "additionalProperties": false}}})");
  const Json cat = Json::parse(content(post("/v1/chat/completions", body)));
  EXPECT_TRUE(cat["name"].is_string());
  EXPECT_LE(cat["age"].get<int>(), 30);

  for (const char* member : {"json_schema", "guided_json"}) {
    Json raw = {{"prompt", "A list:"}, {"max_tokens", 60}};
    raw[member] = Json::parse(
        R"({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3})");
    const Json list = Json::parse(post("/v1/completions", raw)["choices"][0]["text"].get<std::string>());
    EXPECT_LE(list.size(), 3u);
  }
  body.erase("response_format");
  body["regex"] = "[ab]{3}c";
  EXPECT_TRUE(std::regex_match(content(post("/v1/chat/completions", body)), std::regex("[ab]{3}c")));
  body.erase("regex");
  body["grammar"] = "root ::= \"yes\" | \"no\"";
  EXPECT_TRUE(std::regex_match(content(post("/v1/chat/completions", body)), std::regex("yes|no")));
  body.erase("grammar");
  body["guided_choice"] = {"a.b", "c|d"};
  EXPECT_TRUE(std::regex_match(content(post("/v1/chat/completions", body)), std::regex("a\\.b|c\\|d")));
  body.erase("guided_choice");
  body["structured_outputs"] = {{"regex", "x+y"}};
  EXPECT_TRUE(std::regex_match(content(post("/v1/chat/completions", body)), std::regex("x+y")));
  const Json response =
      post("/v1/responses", Json::parse(R"({"input": "Hi", "max_output_tokens": 200, "text": {"format":
    {"type": "json_schema", "name": "n", "schema": {"enum": ["red", "green"]}}}})"));
  const std::string colour = response["output"][0]["content"][0]["text"];
  EXPECT_TRUE(colour == "\"red\"" || colour == "\"green\"") << colour;
}

TEST(Form, WhatCannotBeCompiledIsRefusedWithItsPlace) {
  const auto refused = [](const char* more, const char* param, const char* says) {
    Json body = request();
    body.update(Json::parse(more));
    const Json error = post("/v1/chat/completions", body, 400)["error"];
    EXPECT_EQ(error["param"], param) << error;
    EXPECT_NE(error["message"].get<std::string>().find(says), std::string::npos) << error;
  };
  const char* at = "response_format.json_schema.schema";
  refused(R"({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema":
    {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}}}})",
          at, "#/properties/a");
  refused(
      R"({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "strnig"}}}})",
      at, "#");
  refused(
      R"({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/nowhere"}}}})",
      at, "#");
  refused(
      R"({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}}})",
      at, "#");
  refused(R"({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}})", at, "missing");
  refused(R"({"response_format": {"type": "xml"}})", "response_format.type", "json_schema");
  refused(R"({"regex": "(a"})", "regex", "regex");
  refused(R"({"grammar": "root ::= other"})", "grammar", "other");
  refused(R"({"grammar": "root ::= root"})", "grammar", "grammar");
  refused(R"({"regex": "a", "grammar": "root ::= \"a\""})", "regex", "grammar");
  refused(R"({"regex": "a", "ignore_eos": true})", "ignore_eos", "ignore_eos");
  refused(R"({"guided_choice": []})", "guided_choice", "at least 1");
  refused(R"({"tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters":
    {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}}}]})",
          "tools[0].function.parameters", "#/properties/a");
}

TEST(Form, RequiredCallsFollowTheirSchemaInEveryDialect) {
  const auto check = [](const std::string& name, const Json& arguments) {
    EXPECT_EQ(name, "weather");
    EXPECT_TRUE(arguments["place"].is_string()) << arguments;
    EXPECT_GE(arguments["days"].get<int>(), 1);
    EXPECT_LE(arguments["days"].get<int>(), 9);
  };
  Json body = request();
  body["tools"] = Json::array({weather_tool()});
  body["parallel_tool_calls"] = false;
  for (const Json& choice :
       {Json("required"), Json{{"type", "function"}, {"function", {{"name", "weather"}}}}}) {
    body["tool_choice"] = choice;
    const Json answer = post("/v1/chat/completions", body)["choices"][0];
    EXPECT_EQ(answer["finish_reason"], "tool_calls");
    EXPECT_TRUE(answer["message"]["content"].is_null());
    ASSERT_EQ(answer["message"]["tool_calls"].size(), 1u);
    const Json& function = answer["message"]["tool_calls"][0]["function"];
    check(function["name"], Json::parse(function["arguments"].get<std::string>()));

    Json streaming = body;
    streaming["stream"] = true;
    std::string name, arguments;
    for (const auto& [event, data] : events(server().post("/v1/chat/completions", streaming.dump()).body)) {
      if (data == "[DONE]") break;
      const Json delta = Json::parse(data)["choices"][0]["delta"];
      if (!delta.contains("tool_calls")) continue;
      const Json& call = delta["tool_calls"][0];
      EXPECT_EQ(call["index"], 0);
      if (call["function"].contains("name")) name += call["function"]["name"];
      arguments += call["function"]["arguments"];
    }
    EXPECT_EQ(name, "weather");
    EXPECT_EQ(arguments, function["arguments"]);
  }
  Json message = request();
  message["tools"] =
      Json::array({{{"name", "weather"}, {"input_schema", weather_tool()["function"]["parameters"]}}});
  message["tool_choice"] = {{"type", "any"}, {"disable_parallel_tool_use", true}};
  const Json blocks = post("/v1/messages", message);
  EXPECT_EQ(blocks["stop_reason"], "tool_use");
  ASSERT_EQ(blocks["content"].size(), 1u) << blocks;
  check(blocks["content"][0]["name"], blocks["content"][0]["input"]);

  Json tool = weather_tool()["function"];
  tool["type"] = "function";
  const Json items = post("/v1/responses", {{"input", "Hi"},
                                            {"max_output_tokens", 200},
                                            {"seed", 3},
                                            {"tool_choice", "required"},
                                            {"parallel_tool_calls", false},
                                            {"tools", Json::array({tool})}})["output"];
  ASSERT_EQ(items.size(), 1u) << items;
  EXPECT_EQ(items[0]["type"], "function_call");
  check(items[0]["name"], Json::parse(items[0]["arguments"].get<std::string>()));
}

// Reasoning, then text, then two calls.
TEST(Form, TranscriptsAreAsRecorded) {
  const std::string text =
      "<think>\nThe user \"greets\".\n</think>\n\nI will look.\n<tool_call>\n{\"name\": \"weather\", "
      "\"arguments\": "
      "{\"place\": \"Rome\", \"days\": 2}}\n</tool_call>\n<tool_call>\n{\"name\": \"weather\", "
      "\"arguments\": "
      "{\"place\": \"Oslo\", \"days\": 3}}\n</tool_call>";
  Json body = request();
  body["regex"] = only(text);
  body["temperature"] = 0;
  Json chat = body;
  chat["tools"] = Json::array({weather_tool()});
  expect_recorded("chat_calls.json", server().post("/v1/chat/completions", chat.dump()).body);
  chat["stream"] = true;
  chat["stream_options"] = {{"include_usage", true}};
  expect_recorded("chat_calls.sse", server().post("/v1/chat/completions", chat.dump()).body);

  Json message = body;
  message["tools"] =
      Json::array({{{"name", "weather"}, {"input_schema", weather_tool()["function"]["parameters"]}}});
  expect_recorded("messages_calls.json", server().post("/v1/messages", message.dump()).body);
  message["stream"] = true;
  expect_recorded("messages_calls.sse", server().post("/v1/messages", message.dump()).body);

  Json tool = weather_tool()["function"];
  tool["type"] = "function";
  Json response = {
      {"input", "Hi"}, {"regex", only(text)}, {"temperature", 0}, {"tools", Json::array({tool})}};
  expect_recorded("responses_calls.json", server().post("/v1/responses", response.dump()).body);
  response["stream"] = true;
  expect_recorded("responses_calls.sse", server().post("/v1/responses", response.dump()).body);

  expect_recorded("completions.json", server()
                                          .post("/v1/completions", Json{{"prompt", {"Hi", "Ho"}},
                                                                        {"echo", true},
                                                                        {"regex", only("one, \"two\"")},
                                                                        {"temperature", 0},
                                                                        {"n", 1},
                                                                        {"max_tokens", 40}}
                                                                       .dump())
                                          .body);
}

}  // namespace
}  // namespace cairn::serve
