#include "terminal.h"

#include <gtest/gtest.h>

namespace cairn::app {
namespace {

TEST(Terminal, ReadableBytesRoundsAtTheUnits) {
  EXPECT_EQ(readable_bytes(0), "0 B");
  EXPECT_EQ(readable_bytes(1023), "1023 B");
  EXPECT_EQ(readable_bytes(1024), "1.0 KiB");
  EXPECT_EQ(readable_bytes(1536), "1.5 KiB");
  EXPECT_EQ(readable_bytes((1u << 20) - 1), "1.0 MiB");  // never "1024.0 KiB"
  EXPECT_EQ(readable_bytes(~uint64_t{0}), "16.0 EiB");
}

TEST(Terminal, ReadableDurationAddsHoursWhenThereAreSome) {
  EXPECT_EQ(readable_duration(0.2), "1 s");
  EXPECT_EQ(readable_duration(59), "59 s");
  EXPECT_EQ(readable_duration(187), "3:07");
  EXPECT_EQ(readable_duration(7205), "2:00:05");
  EXPECT_EQ(readable_duration(-1), "?");
  EXPECT_EQ(readable_duration(0.0 / 0.0 * 1), "?");
}

TEST(Terminal, DisplayWidthCountsColumnsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("é"), 1);
  EXPECT_EQ(display_width("e\u0301"), 1);  // a combining accent takes no column of its own
  EXPECT_EQ(display_width("漢字"), 4);
  EXPECT_EQ(display_width("\xff\xfe"), 2);
  EXPECT_EQ(display_width("\xe6\xbc"), 2);  // half a character: two invalid bytes
}

TEST(Terminal, VisibleKeepsTextAndDisarmsControls) {
  EXPECT_EQ(visible("größe 漢字\n"), "größe 漢字");
  EXPECT_EQ(visible("a\x1b[2J\x07z\tq"), "a\\x1b[2J\\x07z q");
  EXPECT_EQ(visible("\xc2\x9b"
                    "31m \xc2\xa9"),
            "\\x9b31m ©");
}

TEST(Terminal, QuotedTextShowsEveryByte) {
  EXPECT_EQ(quoted_text(" 漢"), "\" 漢\"");
  EXPECT_EQ(quoted_text("a\n\"\\\x1b"), R"("a\n\"\\\x1b")");
  EXPECT_EQ(quoted_text("\xe6\xbc"), R"("\xe6\xbc")");
  EXPECT_EQ(quoted_text(std::string_view("\0", 1)), R"("\x00")");
}

TEST(Terminal, ProgressLineShowsShareRateAndTimeLeft) {
  const auto line = progress_line("load", 512, 1024, ProgressUnit::bytes, 128, 90);
  EXPECT_EQ(line, "load [####################....................]  50% 512 B/1.0 KiB 128 B/s 4 s left");
}

TEST(Terminal, ProgressLineNeverExceedsTheTerminal) {
  for (int columns = 1; columns < 120; ++columns)
    for (uint64_t done : {0, 1, 499, 1000, 2000}) {
      const auto line = progress_line("模型 weights", done, 1000, ProgressUnit::tokens, 12.5, columns);
      EXPECT_LE(display_width(line), columns) << line;
    }
}

TEST(Terminal, ProgressLineSaysHundredOnlyWhenDone) {
  EXPECT_NE(progress_line("x", 999'999, 1'000'000, ProgressUnit::items, 0, 80).find(" 99%"),
            std::string::npos);
  EXPECT_NE(progress_line("x", 1'000'000, 1'000'000, ProgressUnit::items, 0, 80).find("100%"),
            std::string::npos);
}

TEST(Terminal, ProgressLineWithoutTotalHasNoBar) {
  EXPECT_EQ(progress_line("read", 2048, 0, ProgressUnit::bytes, 1024, 80), "read 2.0 KiB 1.0 KiB/s");
}

}  // namespace
}  // namespace cairn::app
