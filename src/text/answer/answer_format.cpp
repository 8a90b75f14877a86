#include "text/answer/answer_format.h"

#include "text/answer/formats.h"
#include "text/answer/tool_schema.h"
#include "text/answer/written_calls.h"

namespace cairn::text {

using namespace answer;

AnswerFormat AnswerFormat::detect(std::string_view chat_template) {
  AnswerFormat format;
  format.tools_ = find_tool_row(chat_template);
  format.channels_ = find_channel_row(chat_template);
  if (format.channels_ == nullptr) format.reasoning_ = find_reasoning_row(chat_template);
  return format;
}

AnswerFormat AnswerFormat::detect(std::string_view chat_template, const Tokenizer& tokenizer) {
  AnswerFormat format = detect(chat_template);
  // Some templates leave calls to the system prompt, but the vocabulary tells what the model was taught.
  if (format.tools_ == nullptr && format.channels_ == nullptr && tokenizer.token_to_id("<tool_call>") &&
      tokenizer.token_to_id("</tool_call>"))
    format.tools_ = answer::tool_row("hermes");
  if (format.reasoning_ == nullptr && format.channels_ == nullptr && tokenizer.token_to_id("<think>") &&
      tokenizer.token_to_id("</think>"))
    format.reasoning_ = find_reasoning_row("think>");

  std::vector<std::string_view> tags;
  if (const ToolRow* row = format.tools_) {
    tags.insert(tags.end(), {row->open, row->close});
    for (const CallForm& form : row->forms)
      tags.insert(tags.end(), {form.begin, form.name_end, form.end, form.parameter, form.key_end,
                               form.value_end, form.string_key_end, form.json_key_end, form.id_mark});
    if (row->name == "gemma-4") tags.push_back("<|\"|>");
  }
  if (const ReasoningRow* row = format.reasoning_) {
    tags.insert(tags.end(), {row->begin, row->end});
    tags.insert(tags.end(), std::begin(row->dropped), std::end(row->dropped));
  }
  if (const ChannelRow* row = format.channels_) {
    tags.insert(tags.end(), {row->header_begin, row->also_begin, row->message_begin, "<|constrain|>"});
    tags.insert(tags.end(), std::begin(row->ends), std::end(row->ends));
  }
  for (TokenId id = 0; id < tokenizer.vocabulary_size(); ++id) {
    if (!tokenizer.is_special(id)) continue;
    const std::string piece = tokenizer.piece(id);
    for (const std::string_view tag : tags)
      if (!piece.empty() && tag.find(piece) != std::string_view::npos) {
        format.visible_.push_back(id);
        break;
      }
  }
  return format;
}

std::string_view AnswerFormat::name() const {
  if (tools_ != nullptr) return tools_->name;
  if (channels_ != nullptr) return channels_->name;
  return reasoning_ != nullptr ? reasoning_->name : "plain";
}

bool AnswerFormat::parses_tools() const { return tools_ != nullptr; }
bool AnswerFormat::parses_reasoning() const { return reasoning_ != nullptr || channels_ != nullptr; }

std::string_view AnswerFormat::reasoning_end_text() const {
  if (channels_ != nullptr) return channels_->end_text;
  return reasoning_ != nullptr ? reasoning_->end_text : "";
}

std::vector<ToolSyntax> AnswerFormat::tool_syntax(const nlohmann::ordered_json& tools) const {
  std::vector<ToolSyntax> all;
  if (tools_ == nullptr || !tools.is_array()) return all;
  for (const auto& tool : tools) {
    ToolSyntax syntax;
    syntax.tool = name_of(tool);
    if (!is_written_name(syntax.tool)) continue;
    syntax.begin = written_begin(*tools_, syntax.tool);
    const std::string_view written = tools_->written;
    syntax.trigger = written.substr(0, written.find('$'));
    syntax.end = tools_->written_end;
    const CallForm& form = tools_->forms[tools_->written_form];
    if (form.kind == CallKind::parameters || form.kind == CallKind::python || tools_->name == "gemma-4")
      syntax.gbnf = arguments_grammar(*tools_, parameters_of(tool));
    else
      syntax.schema = parameters_of(tool);
    all.push_back(std::move(syntax));
  }
  return all;
}

std::optional<std::string> AnswerFormat::write_calls(const nlohmann::ordered_json& calls) const {
  if (tools_ == nullptr || channels_ != nullptr || !calls.is_array()) return std::nullopt;
  std::string text;
  for (const auto& call : calls) {
    const auto& function = function_of(call);
    const auto arguments = function.is_object() ? function.find("arguments") : function.end();
    if (!is_written_name(name_of(call)) || !function.is_object() || arguments == function.end())
      return std::nullopt;
    if (!text.empty()) text += '\n';
    text += written_begin(*tools_, name_of(call)) + written_arguments(*tools_, *arguments);
    text += tools_->written_end;
  }
  return text;
}

}  // namespace cairn::text
