// How a template family writes reasoning and tool calls.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::text {

namespace answer {
struct ToolRow;
struct ReasoningRow;
struct ChannelRow;
}  // namespace answer

// What a call of one tool looks like, for GrammarCompiler::tagged. begin + body + end is what AnswerParser
// reads as that call.
struct ToolSyntax {
  std::string tool;
  std::string trigger;  // how every call begins; begin starts with it, or is all of it
  std::string begin;    // up to the arguments, the tool's name included
  // The arguments: a JSON schema, or a GBNF grammar where they are not written as JSON.
  std::optional<nlohmann::ordered_json> schema;
  std::string gbnf;
  std::string end;
};

// Immutable; cheap to copy.
class AnswerFormat {
 public:
  AnswerFormat() = default;  // plain text
  // Chosen by what the template contains; plain text when nothing is recognised.
  static AnswerFormat detect(std::string_view chat_template, const Tokenizer&);
  static AnswerFormat detect(std::string_view chat_template);  // visible_special() stays empty

  std::string_view name()
      const;  // of the tool calls' format, else of the reasoning's: "hermes", "harmony", ...
  bool parses_tools() const;
  bool parses_reasoning() const;
  // Special tokens whose text the parser needs to see; the decoder must not skip them.
  std::span<const TokenId> visible_special() const { return visible_; }
  // What the model would have written to end its reasoning: to be fed to the model, and to the parser, when a
  // thinking budget ends. Empty without reasoning.
  std::string_view reasoning_end_text() const;

  // For constraining. Lists of calls are written with one call each, and repeated. Empty when the format has
  // no calls. tools: as in a request, see ToolSchemas.
  std::vector<ToolSyntax> tool_syntax(const nlohmann::ordered_json& tools) const;

  // An assistant's calls as the model itself would have written them, for templates that know no tool calls.
  // calls: [{"function": {"name", "arguments": object}}]. Nothing when the format has no calls.
  std::optional<std::string> write_calls(const nlohmann::ordered_json& calls) const;

  const answer::ToolRow* tool_row() const { return tools_; }
  const answer::ReasoningRow* reasoning_row() const { return reasoning_; }
  const answer::ChannelRow* channel_row() const { return channels_; }

 private:
  const answer::ToolRow* tools_ = nullptr;
  const answer::ReasoningRow* reasoning_ = nullptr;
  const answer::ChannelRow* channels_ = nullptr;
  std::vector<TokenId> visible_;
};

}  // namespace cairn::text
