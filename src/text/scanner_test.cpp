// Each hand-written scanner against PCRE2 with the pattern that it stands for.
#include "text/scanner.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <random>

#include "text/regex.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

std::vector<std::string> scan(const Scanner& scanner, std::string_view text) {
  std::vector<std::string> words;
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const char* next = scanner.word_end(p, end);
    words.emplace_back(p, next);
    p = next;
  }
  return words;
}

std::vector<std::string> match(const Regex& regex, std::string_view text) {
  std::vector<std::string> words;
  for (const auto& span : regex.cut(text)) {
    EXPECT_TRUE(span.match) << "the pattern leaves gaps";
    words.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return words;
}

// PCRE2 10.42 knows Unicode 14, utf8proc 2.8 Unicode 15: only characters that both know alike are drawn.
bool same_in_both(uint32_t c) {
  static const Regex letter("\\p{L}", ""), number("\\p{N}", ""), mark("\\p{M}", ""), lower("\\p{Ll}", "");
  std::string text;
  append_utf8(text, c);
  const auto category = utf8proc_category(utf8proc_int32_t(c));
  const bool l = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
  const bool n = category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
  const bool m = category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
  return letter.cut(text)[0].match == l && number.cut(text)[0].match == n && mark.cut(text)[0].match == m &&
         lower.cut(text)[0].match == (category == UTF8PROC_CATEGORY_LL);
}

std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> pieces = {"'s",
                                                  "'S",
                                                  "'T",
                                                  "'ll",
                                                  "'LL",
                                                  "'l",
                                                  "'re",
                                                  "'RE",
                                                  "'Ve",
                                                  "'d",
                                                  "'m",
                                                  "'\xc5\xbf",
                                                  "'",
                                                  "''",
                                                  " ",
                                                  "  ",
                                                  "\n",
                                                  "\r\n",
                                                  "\r",
                                                  "\t",
                                                  "\xc2\xa0",
                                                  "\xe3\x80\x80",
                                                  "\xe1\xa0\x8e",
                                                  "\xe2\x80\xa8",
                                                  "\xc2\x85",
                                                  "1",
                                                  "12",
                                                  "123",
                                                  "1234",
                                                  "\xc2\xbd",
                                                  "\xd9\xa3",
                                                  "a",
                                                  "A",
                                                  "b",
                                                  "Zz",
                                                  "zZ",
                                                  "McDonald",
                                                  "don't",
                                                  "\xc3\xa9",
                                                  "\xc7\x85",
                                                  "\xca\xb0",
                                                  "\xe4\xbd\xa0",
                                                  "\xcc\x81",
                                                  "\xe0\xa4\xbf",
                                                  "\xe0\xb8\xb1",
                                                  ".",
                                                  "!!",
                                                  "/",
                                                  "//\n",
                                                  "$",
                                                  "\xe2\x82\xac",
                                                  "\xf0\x9f\xa6\x99",
                                                  "\xe2\x80\x8d",
                                                  "_",
                                                  "-",
                                                  "\n\n  \n",
                                                  "   x"};
  std::string text;
  for (size_t n = random() % 12; n > 0; --n) {
    if (random() % 8 == 0) {
      static constexpr uint32_t kLimits[] = {0x80, 0x250, 0x3000, 0x10000, 0x20000, 0x110000};
      const uint32_t c = uint32_t(random()) % kLimits[random() % 6];
      if (!(c >= 0xd800 && c < 0xe000) && same_in_both(c)) append_utf8(text, c);
    } else {
      text += pieces[random() % pieces.size()];
    }
  }
  return text;
}

class ScannerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ScannerTest, CutsAsItsPattern) {
  const auto scanner = scanner_for_pattern(GetParam());
  ASSERT_TRUE(scanner);
  // In the files of tiktoken $ is the end of the text, not of a line.
  std::string pattern = GetParam();
  for (size_t at; (at = pattern.find("++$|")) != pattern.npos;) pattern.replace(at, 4, "++\\z|");
  const Regex regex(pattern, "test");
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random_text(random);
    ASSERT_EQ(scan(*scanner, text), match(regex, text)) << "text " << i << ": \"" << text << "\"";
  }
}

INSTANTIATE_TEST_SUITE_P(Patterns, ScannerTest,
                         ::testing::Values(patterns::kGpt2, patterns::kGpt2Tiktoken, patterns::kCl100k,
                                           patterns::kCl100kTiktoken, patterns::kQwen2, patterns::kQwen35,
                                           patterns::kO200k, patterns::kTekken));

TEST(Scanner, IsOnlyForPatternsItKnowsExactly) {
  EXPECT_FALSE(scanner_for_pattern(""));
  EXPECT_FALSE(scanner_for_pattern(std::string(patterns::kGpt2) + " "));
}

TEST(Scanner, IsLinearOnLongRuns) {
  for (const char* unit : {"a", " ", "1", "!", "\n", "\xcc\x81", "A"}) {
    std::string text;
    for (int i = 0; i < 200000; ++i) text += unit;
    for (const char* pattern : {patterns::kGpt2, patterns::kCl100k, patterns::kO200k})
      EXPECT_FALSE(scan(*scanner_for_pattern(pattern), text).empty());
  }
}

}  // namespace
}  // namespace cairn::text
