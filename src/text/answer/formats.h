// How template families write reasoning and tool calls: the rows that the generic readers are driven by.
// A new family is a row in formats.cpp, and a template in the tests.
#pragma once

#include <span>
#include <string_view>

namespace cairn::text::answer {

enum class CallKind {
  none,
  json,        // {"name": ..., "arguments": {...}}, also nested in "function"
  value,       // the name between two tags, then the arguments as one JSON (or Gemma) object
  parameters,  // the name, then every argument between tags of its own
  python,      // name(argument=value, ...)
};

// One call. Whitespace may stand before begin, parameter, end and the arguments. Tags: see tag_pattern.h.
struct CallForm {
  CallKind kind = CallKind::none;
  std::string_view begin = {};     // before the name, or before the object
  std::string_view name_end = {};  // empty: the name ends where arguments, end or the section's close begin
  std::string_view end = {};       // behind the arguments
  // kind parameters: parameter KEY key_end VALUE value_end
  std::string_view parameter = {}, key_end = {}, value_end = {};
  std::string_view string_key_end = {};  // another key_end, which says that the value is a string
  std::string_view json_key_end = {};    // ... that it is JSON
  bool line_values = false;              // one line break on each side of a value is layout
  bool cdata = false;                    // a value may be wrapped in <![CDATA[ ]]>
  std::string_view id_mark = {};         // what separates name and id in the name: NAME[CALL_ID]ID
};

enum class IdStyle {
  call,     // "call_" and 24 letters and digits
  mistral,  // 9 letters and digits
  kimi,     // functions.NAME:INDEX, which is how the model writes the name
};

// Calls stand between open and close, several in a row, in a JSON list or separated by , or ;. Without open
// every call's begin opens, without close what is no further call ends the section.
struct ToolRow {
  std::string_view name;
  std::string_view marks[3] = {};  // texts that the chat template has to contain
  std::string_view open = {}, close = {};
  CallForm forms[2] = {};
  IdStyle ids = IdStyle::call;
  // How one call is written for us: its text with $ for the name, up to the arguments and behind them.
  std::string_view written = {}, written_end = {};
  int written_form = 0;           // which form that is
  bool bare = false;              // an answer that starts with a call of a known tool needs no tag
  bool ends_reasoning = false;    // open is a special token and never quoted: it also ends reasoning
  std::string_view no_call = {};  // a tool of this name means: no call
};

struct ReasoningRow {
  std::string_view name;
  std::string_view marks[2] = {};
  std::string_view begin = {}, end = {};
  std::string_view end_text = {};    // what to write to end thinking early, layout included
  std::string_view dropped[4] = {};  // tags around the content
  std::string_view opened_by = {};   // how a prompt ends that opens the reasoning, when it is not begin
};

// Every message has a header that says what it is: header_begin HEADER message_begin TEXT end.
struct ChannelRow {
  std::string_view name;
  std::string_view marks[2] = {};
  std::string_view header_begin = {}, also_begin = {}, message_begin = {};
  std::string_view ends[3] = {};
  std::string_view end_text = {};
  bool header_names_tool = false;  // to=functions.NAME and the arguments as text, else the text is tagged
  std::string_view tool_prefix = {};
};

std::span<const ToolRow> tool_rows();
std::span<const ReasoningRow> reasoning_rows();
std::span<const ChannelRow> channel_rows();

// The first row whose marks are all in the template; null when none.
const ToolRow* find_tool_row(std::string_view chat_template);
const ReasoningRow* find_reasoning_row(std::string_view chat_template);
const ChannelRow* find_channel_row(std::string_view chat_template);
const ToolRow* tool_row(std::string_view name);

}  // namespace cairn::text::answer
