// Any text as the answer of any format: whole, byte by byte and in pieces it is parsed into the same, and
// without a call nothing is lost but layout.
#include <cstdlib>

#include "text/answer/answer_parser.h"
#include "text/answer/formats.h"

namespace {

using namespace cairn::text;

const std::vector<AnswerFormat>& formats() {
  static const std::vector<AnswerFormat> all = [] {
    std::vector<AnswerFormat> list;
    for (const auto& row : answer::tool_rows()) {
      std::string marks = row.name == "harmony" ? "<|message|>"
                          : row.name == "muse"  ? "to=self <|message|>"
                                                : "";
      for (std::string_view mark : row.marks) marks += " " + std::string(mark);
      list.push_back(AnswerFormat::detect(marks));
      list.push_back(AnswerFormat::detect(marks + " think>"));
    }
    for (const auto& row : answer::reasoning_rows()) {
      std::string marks;
      for (std::string_view mark : row.marks) marks += " " + std::string(mark);
      list.push_back(AnswerFormat::detect(marks));
    }
    return list;
  }();
  return all;
}

struct Joined {
  std::string reasoning, content;
  std::vector<AnswerDelta::ToolCall> calls;
  void add(const AnswerDelta& delta) {
    reasoning += delta.reasoning;
    content += delta.content;
    for (const auto& call : delta.tool_calls) {
      if (call.index == int(calls.size()))
        calls.push_back(call);
      else if (call.index + 1 != int(calls.size()) || !call.name.empty())
        std::abort();
      else
        calls.back().arguments += call.arguments;
    }
  }
  bool operator==(const Joined&) const = default;
};

Joined parse(const AnswerFormat& format, std::string_view tail, std::string_view text, size_t piece,
             bool reasoning) {
  static const auto tools = nlohmann::ordered_json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"}}}}}])");
  AnswerParser parser(format, tail, tools, reasoning, true, "seed");
  Joined joined;
  for (size_t at = 0; at < text.size(); at += piece) joined.add(parser.add(text.substr(at, piece)));
  joined.add(parser.finish());
  return joined;
}

}  // namespace

// Bytes: format, how to split and start, then the answer.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 1 << 16) return 0;
  const AnswerFormat& format = formats()[data[0] % formats().size()];
  std::string_view tail;
  if ((data[1] & 1) != 0) tail = format.channel_row() != nullptr ? "<|start|>assistant" : "<think>";
  const bool reasoning = (data[1] & 2) == 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Joined whole = parse(format, tail, text, text.size() + 1, reasoning);
  for (const size_t piece : {size_t{1}, size_t{2} + data[1] % 13})
    if (!(parse(format, tail, text, piece, reasoning) == whole)) std::abort();
  return 0;
}
