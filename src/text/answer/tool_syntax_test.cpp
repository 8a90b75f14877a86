// What tool_syntax() gives to constrain calls by: what follows it is read as a call again.
#include <fmt/format.h>

#include "base/error.h"
#include "text/answer/answer_testing.h"
#include "text/answer/formats.h"
#include "text/answer/written_calls.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;

const Json kTools = Json::parse(R"([
  {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
      "s": {"type": "string"}, "n": {"type": "integer"}, "o": {"type": "object"}, "e": {"enum": ["a b", "c"]},
      "u": {"type": ["string", "null"]}, "b": {"type": "boolean"}}, "required": ["n", "s"]}}},
  {"name": "none"}])");

AnswerFormat format_of(const answer::ToolRow& row) {
  std::string marks = row.name == "harmony" ? "<|message|>" : row.name == "muse" ? "to=self <|message|>" : "";
  for (std::string_view mark : row.marks) marks += " " + std::string(mark);
  return AnswerFormat::detect(marks);
}

TEST(ToolSyntax, BeginBodyAndEndAreACall) {
  for (const answer::ToolRow& row : answer::tool_rows()) {
    const AnswerFormat format = format_of(row);
    const auto syntax = format.tool_syntax(kTools);
    ASSERT_EQ(syntax.size(), 2u) << row.name;
    for (const ToolSyntax& one : syntax) {
      EXPECT_TRUE(one.begin.starts_with(one.trigger) && !one.trigger.empty()) << row.name;
      EXPECT_NE(one.schema.has_value(), !one.gbnf.empty()) << row.name;
      const Json arguments = one.tool == "f" ? Json::parse(R"({"s": "x", "n": 3})") : Json::object();
      const std::string text = one.begin + answer::written_arguments(row, arguments) + one.end;
      const Parsed parsed =
          parse_whole({format, row.name == "harmony" ? "<|start|>assistant" : "", text, kTools});
      ASSERT_EQ(parsed.calls.size(), 1u) << text;
      EXPECT_EQ(parsed.calls[0].name, one.tool) << text;
      EXPECT_EQ(nlohmann::json::parse(parsed.calls[0].arguments), nlohmann::json::parse(arguments.dump()))
          << text;
      EXPECT_EQ(parsed.content, "") << text;
    }
  }
  EXPECT_TRUE(AnswerFormat().tool_syntax(kTools).empty());
}

TEST(ToolSyntax, SchemasAreTheToolsOwn) {
  const auto syntax = AnswerFormat::detect("<tool_call>").tool_syntax(kTools);
  EXPECT_EQ(*syntax[0].schema, kTools[0]["function"]["parameters"]);
  EXPECT_EQ(*syntax[1].schema, Json({{"type", "object"}}));
  EXPECT_EQ(syntax[0].begin, "<tool_call>\n{\"name\": \"f\", \"arguments\": ");
  EXPECT_EQ(syntax[0].end, "}\n</tool_call>");
}

}  // namespace
}  // namespace cairn::text
