#include "load/sse.h"

#include <gtest/gtest.h>

#include <vector>

namespace cairn::load {
namespace {

using Events = std::vector<std::pair<std::string, std::string>>;

Events parse(SseParser& parser, const std::vector<std::string_view>& pieces) {
  Events events;
  for (const auto piece : pieces)
    parser.add(piece, [&](std::string_view type, std::string_view data) { events.emplace_back(type, data); });
  return events;
}

Events parse(std::string_view text) {
  SseParser parser;
  return parse(parser, {text});
}

TEST(Sse, ReadsWhatServersSend) {
  EXPECT_EQ(parse("data: {\"a\":1}\n\ndata: [DONE]\n\n"), (Events{{"", "{\"a\":1}"}, {"", "[DONE]"}}));
  EXPECT_EQ(parse("event: error\ndata: x\n\n"), (Events{{"error", "x"}}));
  EXPECT_EQ(parse("data:no space\n\n"), (Events{{"", "no space"}}));
  EXPECT_EQ(parse("data: one\ndata: two\ndata\n\n"), (Events{{"", "one\ntwo\n"}}));
  EXPECT_EQ(parse(": keep-alive\n\nid: 7\nretry: 10\n\n"), Events());
  EXPECT_EQ(parse("\xef\xbb\xbf"
                  "data: marked\n\n"),
            (Events{{"", "marked"}}));
  EXPECT_EQ(parse("data: cut off\n"), Events());
  EXPECT_EQ(parse("event: lost\n\ndata: x\n\n"), (Events{{"", "x"}}));
}

TEST(Sse, EverySplitGivesTheSameEvents) {
  const std::string text =
      "data: {\"a\":\"\xc3\xa9\"}\n\n: note\r\n\r\nevent: odd\rdata: 1\rdata: 2\r\r"
      "data: crlf\r\ndata:\r\n\r\ndata\n\ndata: [DONE]\n\n";
  const Events whole = parse(text);
  ASSERT_EQ(whole.size(), 5u);
  for (size_t a = 0; a <= text.size(); ++a)
    for (size_t b = a; b <= text.size(); ++b) {
      SseParser parser;
      const std::string_view view = text;
      ASSERT_EQ(parse(parser, {view.substr(0, a), view.substr(a, b - a), view.substr(b)}), whole)
          << "split at " << a << " and " << b;
    }
  SseParser single;
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(std::string_view(text).substr(i, 1));
  EXPECT_EQ(parse(single, bytes), whole);
  EXPECT_EQ(single.comments(), 1u);
}

TEST(Sse, EndsAtItsLimitWhateverTheSplit) {
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{1000}}) {
    SseParser parser(100);
    const std::string text = "data: " + std::string(500, 'x');
    bool fits = true;
    for (size_t at = 0; at < text.size(); at += piece)
      fits = parser.add(std::string_view(text).substr(at, piece), [](auto, auto) { FAIL(); });
    EXPECT_FALSE(fits);
    EXPECT_FALSE(parser.add("\n\ndata: later\n\n", [](auto, auto) { FAIL(); }));
  }
  SseParser lines(100);
  bool fits = true;
  for (int i = 0; i < 50; ++i) fits = lines.add("data: 0123456789\n", [](auto, auto) { FAIL(); });
  EXPECT_FALSE(fits);
}

}  // namespace
}  // namespace cairn::load
