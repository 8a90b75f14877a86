// Splits an answer into reasoning, content and tool calls while it is written.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/answer/answer_format.h"

namespace cairn::text {

// What became certain.
struct AnswerDelta {
  std::string reasoning, content;
  struct ToolCall {
    int index = 0;
    std::string id, name;   // only in the first delta of a call
    std::string arguments;  // JSON text, to be appended
    bool operator==(const ToolCall&) const = default;
  };
  std::vector<ToolCall> tool_calls;

  bool empty() const { return reasoning.empty() && content.empty() && tool_calls.empty(); }
};

// Any split of the same text gives the same deltas joined, and text that may yet become a tag is held back.
//
// What is no call is content, byte for byte: a tag followed by something else, JSON without a name, a call
// cut before its name and the start of its arguments were read. From then on the client has been told of the
// call, so it stays one: arguments come as the model writes them, and an answer cut inside leaves them cut
// (unfinished_call()). Whitespace between a tag and text is layout and dropped, as are the tags themselves.
// Control characters inside JSON strings, Python's literals and the like become JSON
// (answer/literal_reader.h).
class AnswerParser {
 public:
  // prompt_tail: the end of the rendered prompt (a few hundred bytes do), which tells whether the template
  // has opened or closed the reasoning. For an answer that continues one, feed its beginning to add() and
  // drop the delta. tools: the request's; they say which parameters are strings where the format does not.
  // id_seed: ids of calls follow from it and the call's index (and are the model's own where it writes them
  // first): give something unique, such as the request's id.
  AnswerParser(const AnswerFormat&, std::string_view prompt_tail, const nlohmann::ordered_json& tools,
               bool parse_reasoning, bool parse_tools, std::string_view id_seed = {});
  ~AnswerParser();
  AnswerParser(AnswerParser&&) noexcept;

  AnswerDelta add(std::string_view text);
  AnswerDelta finish();  // once, at the end

  bool in_reasoning() const;     // what comes next is reasoning, as far as is certain
  bool unfinished_call() const;  // after finish(): the last call's arguments are cut
  int tool_calls() const;        // how many have begun

 private:
  class Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace cairn::text
