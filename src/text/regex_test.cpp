#include "text/regex.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cairn::text {
namespace {

std::string cut(const char* pattern, std::string_view text) {
  std::string out;
  for (const auto& span : Regex(pattern, "test").cut(text)) {
    out += span.match ? '[' : '(';
    out += text.substr(span.begin, span.end - span.begin);
    out += span.match ? ']' : ')';
  }
  return out;
}

TEST(Regex, CutsIntoMatchesAndGaps) {
  EXPECT_EQ(cut("b+", "abbcb"), "(a)[bb](c)[b]");
  EXPECT_EQ(cut("x", "abc"), "(abc)");
  EXPECT_EQ(cut("x", ""), "");
  EXPECT_EQ(cut("\\p{N}{1,3}", "12345"), "[123][45]");
}

TEST(Regex, EmptyMatchesCutLikeOniguruma) { EXPECT_EQ(cut("x*", "axb"), "[](a)[x](b)[]"); }

TEST(Regex, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(cut("\\s",
                "a\xe1\xa0\x8e"
                "b"),
            "(a\xe1\xa0\x8e"
            "b)");  // U+180E is not white space
  EXPECT_EQ(cut("\\s",
                "a\xe3\x80\x80"
                "b"),
            "(a)[\xe3\x80\x80](b)");
  EXPECT_EQ(cut("[^\\s]+", "a b"), "[a]( )[b]");
  EXPECT_EQ(cut("\\S+", "a b"), "[a]( )[b]");
}

TEST(Regex, WordsIncludeMarks) {
  EXPECT_EQ(cut("\\w+", "e\xcc\x81-x"), "[e\xcc\x81](-)[x]");
  EXPECT_EQ(cut("\\w+", "a\u24b6\u2170+\u2460"),
            "[a\u24b6\u2170](+\u2460)");  // letters in circles, not digits
}

TEST(Regex, AScriptIsTheCharactersOwn) {
  EXPECT_EQ(cut("\\p{Han}+", "\u6f22\u3001"), "[\u6f22](\u3001)");  // the comma is used with Han
}

TEST(Regex, DollarIsTheEndOfALine) { EXPECT_EQ(cut("\\s+$", "a  \nb "), "(a)[  ](\nb)[ ]"); }

TEST(Regex, TranslatesClassesAndScripts) {
  EXPECT_EQ(translate_pattern("\\p{L}\\P{Lu}"), "\\p{L}\\P{Lu}");
  EXPECT_EQ(translate_pattern("[]\\]a]\\h"), "[]\\]a][0-9a-fA-F]");
  EXPECT_EQ(translate_pattern("a\\"), "a\\");
}

TEST(Regex, RefusesWhatItCannotCompile) {
  try {
    Regex("(", "file.json: /pre_tokenizer");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_NE(std::string(error.what()).find("file.json: /pre_tokenizer"), std::string::npos);
  }
  EXPECT_THROW(Regex(std::string(70000, 'a'), "test"), Error);
}

TEST(Regex, EffortIsBounded) {
  const Regex regex("(a+)+$", "test");
  EXPECT_THROW(regex.cut(std::string(64, 'a') + "b"), Error);
}

}  // namespace
}  // namespace cairn::text
