// What tool_syntax() gives to constrain calls by: what follows it is read as a call again.
#include <fmt/format.h>

#include "base/error.h"
#include "text/answer/answer_testing.h"
#include "text/answer/formats.h"
#include "text/answer/tool_grammar.h"
#include "text/answer/written_calls.h"
#include "text/constrain/grammar.h"
#include "text/constrain/piece_tokenizer_testing.h"

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

// The calls of every format fit the grammar that its syntax makes, byte by byte, and what is no argument does
// not.
TEST(ToolSyntax, GrammarsAllowWhatIsWritten) {
  const auto tokenizer = testing::PieceTokenizer::bytes_and({});
  GrammarCompiler compiler(tokenizer, tokenizer.vocabulary_size());
  const auto fits = [&](const GrammarPtr& grammar, const std::string& text) {
    GrammarMatcher matcher(grammar);
    for (unsigned char byte : text)
      if (!matcher.accept(TokenId(byte))) return false;
    return matcher.at_end();
  };
  const std::vector<Json> calls = {
      Json::parse(
          R"({"s": "a <b> \n\"c\" </x> d", "n": -3, "o": {"k": [1, 2.5, {"z": "q"}]}, "e": "a b", "u": "x", "b": true})"),
      Json::parse(R"({"s": "", "n": 0})"), Json::parse(R"({"s": "</", "n": 12, "e": "c"})")};
  for (const answer::ToolRow& row : answer::tool_rows()) {
    const AnswerFormat format = format_of(row);
    std::vector<GrammarCompiler::Tagged> tagged;
    for (const ToolSyntax& one : format.tool_syntax(kTools))
      tagged.push_back({one.begin,
                        one.schema ? GrammarSource{GrammarSource::Kind::json_schema, one.schema->dump()}
                                   : GrammarSource{GrammarSource::Kind::gbnf, one.gbnf},
                        one.end});
    const GrammarPtr grammar = compiler.tagged(tagged, /*must_start_with_one=*/true, /*may_repeat=*/true);
    for (const Json& arguments : calls) {
      // Required parameters come first where the grammar is ours, in the schema's order where it is JSON.
      Json ordered = Json::object();
      const Json& schema = kTools[0]["function"]["parameters"];
      const bool own = !format.tool_syntax(kTools)[0].gbnf.empty();
      for (const bool required : {true, false})
        for (auto property = schema["properties"].begin(); property != schema["properties"].end(); ++property)
          if (arguments.contains(property.key()) &&
              (!own || (property.key() == "s" || property.key() == "n") == required))
            ordered[property.key()] = arguments[property.key()];
      const std::string call = answer::written_begin(row, "f") + answer::written_arguments(row, ordered) +
                               std::string(row.written_end);
      EXPECT_TRUE(fits(grammar, call)) << row.name << ": " << call;
    }
    const std::string wrong = answer::written_begin(row, "f") + answer::written_arguments(row, {{"n", "x"}});
    EXPECT_FALSE(fits(grammar, wrong + std::string(row.written_end))) << wrong;
  }
}

TEST(ToolSyntax, OneGrammarForARequestsTools) {
  const auto tokenizer = testing::PieceTokenizer::bytes_and({});
  GrammarCompiler compiler(tokenizer, tokenizer.vocabulary_size());
  const AnswerFormat hermes = AnswerFormat::detect("<tool_call>");
  // How far the text fits, and whether the answer may end there.
  const auto fits = [&](const GrammarPtr& grammar, std::string_view text) {
    GrammarMatcher matcher(grammar);
    size_t at = 0;
    while (at < text.size() && matcher.accept(TokenId(static_cast<unsigned char>(text[at])))) ++at;
    return std::string(text.substr(0, at)) + (at == text.size() && matcher.at_end() ? "|" : "");
  };
  const std::string call =
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"\", \"n\": 1}}\n</tool_call>";
  const GrammarPtr free = tool_grammar(compiler, hermes, kTools);
  EXPECT_EQ(fits(free, "Just text."), "Just text.|");
  EXPECT_EQ(fits(free, "Hm. " + call + call + " Done."), "Hm. " + call + call + " Done.|");
  EXPECT_EQ(fits(free, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x"),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"");
  EXPECT_EQ(fits(free, "<tool_call>\n{\"name\": \"f\", \"arguments\": 1"),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": ");
  const GrammarPtr must = tool_grammar(compiler, hermes, kTools, {.must_call = true, .parallel = false});
  EXPECT_EQ(fits(must, "Just"), "");
  EXPECT_EQ(fits(must, call), call + "|");
  EXPECT_EQ(fits(must, call + call), call);
  EXPECT_EQ(tool_grammar(compiler, AnswerFormat(), kTools), nullptr);

  Json odd = Json::parse(R"([{"name": "g", "parameters": {"type": "object", "$dynamicRef": "#x"}}])");
  const std::string any = "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"a\": 1}}\n</tool_call>";
  EXPECT_EQ(fits(tool_grammar(compiler, hermes, odd, {.must_call = true}), any), any + "|");
  odd[0]["strict"] = true;
  try {
    tool_grammar(compiler, hermes, odd);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_TRUE(std::string_view(e.what()).starts_with("tools[0].parameters: #/$dynamicRef")) << e.what();
  }
}

}  // namespace
}  // namespace cairn::text
