// For tests only: an answer parsed whole and in pieces.
#pragma once

#include <gtest/gtest.h>

#include <random>

#include "text/answer/answer_parser.h"

namespace cairn::text {

struct Parsed {
  std::string reasoning, content;
  std::vector<AnswerDelta::ToolCall> calls;
  bool unfinished = false;

  void add(const AnswerDelta& delta) {
    reasoning += delta.reasoning;
    content += delta.content;
    for (const auto& call : delta.tool_calls) {
      if (call.index == int(calls.size())) {
        calls.push_back(call);
        EXPECT_FALSE(call.name.empty());
        EXPECT_FALSE(call.id.empty());
        continue;
      }
      ASSERT_EQ(call.index, int(calls.size()) - 1) << "only the last call grows";
      EXPECT_EQ(call.name + call.id, "");
      calls.back().arguments += call.arguments;
    }
  }
  bool operator==(const Parsed&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, const Parsed& parsed) {
  out << "reasoning [" << parsed.reasoning << "] content [" << parsed.content << "]";
  for (const auto& call : parsed.calls)
    out << " call " << call.id << " " << call.name << " [" << call.arguments << "]";
  return out << (parsed.unfinished ? " unfinished" : "");
}

struct AnswerCase {
  AnswerFormat format = {};
  std::string tail = {}, text = {};
  nlohmann::ordered_json tools = {};
  bool reasoning = true, calls = true;
};

template <typename NextLength>
Parsed parse_in_pieces(const AnswerCase& answer, NextLength next_length) {
  AnswerParser parser(answer.format, answer.tail, answer.tools, answer.reasoning, answer.calls, "seed");
  Parsed parsed;
  for (size_t at = 0; at < answer.text.size();) {
    const size_t length = std::min(answer.text.size() - at, std::max<size_t>(1, next_length(at)));
    parsed.add(parser.add(std::string_view(answer.text).substr(at, length)));
    at += length;
  }
  parsed.add(parser.finish());
  parsed.unfinished = parser.unfinished_call();
  return parsed;
}

inline Parsed parse_whole(const AnswerCase& answer) {
  return parse_in_pieces(answer, [&](size_t) { return answer.text.size(); });
}

// Byte by byte, every split into two, and random splits into many: always the same.
inline void expect_same_for_every_split(const AnswerCase& answer) {
  const Parsed whole = parse_whole(answer);
  ASSERT_EQ(parse_in_pieces(answer, [](size_t) { return 1; }), whole) << "byte by byte: " << answer.text;
  for (size_t split = 1; split < answer.text.size(); ++split)
    ASSERT_EQ(parse_in_pieces(answer, [&](size_t at) { return at == 0 ? split : answer.text.size(); }), whole)
        << "split at " << split << ": " << answer.text;
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round)
    ASSERT_EQ(parse_in_pieces(answer, [&](size_t) { return 1 + random() % 9; }), whole)
        << "round " << round << ": " << answer.text;
}

}  // namespace cairn::text
