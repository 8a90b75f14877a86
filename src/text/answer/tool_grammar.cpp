#include "text/answer/tool_grammar.h"

#include "base/error.h"
#include "text/answer/tool_schema.h"

namespace cairn::text {

GrammarPtr tool_grammar(GrammarCompiler& compiler, const AnswerFormat& format,
                        const nlohmann::ordered_json& tools, const ToolGrammarOptions& options) {
  std::vector<GrammarCompiler::Tagged> calls;
  for (const ToolSyntax& syntax : format.tool_syntax(tools)) {
    GrammarSource body{GrammarSource::Kind::gbnf, syntax.gbnf};
    if (syntax.schema) {
      body = {GrammarSource::Kind::json_schema, syntax.schema->dump()};
      try {
        compiler.json_schema(*syntax.schema);
      } catch (const Error& e) {
        for (size_t i = 0; i < tools.size(); ++i) {
          const auto& function = answer::function_of(tools[i]);
          if (answer::name_of(tools[i]) != syntax.tool || !function.contains("strict")) continue;
          if (function["strict"].is_boolean() && function["strict"].get<bool>())
            fail(e.kind(), "tools[{}].{}parameters: {}", i, tools[i].contains("function") ? "function." : "",
                 e.what());
        }
        body = {GrammarSource::Kind::json_object, ""};
      }
    }
    calls.push_back({syntax.begin, std::move(body), syntax.end});
  }
  if (calls.empty()) return nullptr;
  return compiler.tagged(calls, options.must_call, options.parallel);
}

}  // namespace cairn::text
