#include <gtest/gtest.h>

#include "base/error.h"
#include "text/constrain/constrain_testing.h"
#include "text/constrain/grammar.h"

namespace cairn::text {
namespace {

using testing::matches;
using testing::PieceTokenizer;

const PieceTokenizer& tokenizer() {
  static const auto made = PieceTokenizer::bytes_and({"select", " from ", "12"});
  return made;
}

class Lark : public ::testing::Test {
 protected:
  GrammarCompiler compiler{tokenizer(), tokenizer().vocabulary_size()};
  std::string error_of(const char* text, ErrorKind kind) {
    try {
      compiler.lark(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error: " << text;
    return {};
  }
};

TEST_F(Lark, CalculatorOfTheManual) {
  const auto grammar = compiler.lark(R"_(
    ?start: sum
          | NAME "=" sum    -> assign_var
    ?sum: product
        | sum "+" product   -> add
        | sum "-" product   -> sub
    ?product: atom
        | product "*" atom  -> mul
        | product "/" atom  -> div
    ?atom: NUMBER           -> number
         | "-" atom         -> neg
         | NAME             -> var
         | "(" sum ")"
    %import common.CNAME -> NAME
    %import common.NUMBER
    %import common.WS_INLINE
    %ignore WS_INLINE
  )_");
  for (const char* good : {"1", "x = 1+2", " 1 + 2 * ( 3 - y ) ", "--4/2.5e3"})
    EXPECT_TRUE(matches(grammar, good)) << good;
  for (const char* bad : {"", "1+", "x = = 1", "(1", "1\n"}) EXPECT_FALSE(matches(grammar, bad)) << bad;
}

TEST_F(Lark, TerminalsHoldNothingIgnored) {
  const auto grammar = compiler.lark(
      "start: \"SELECT\"i column (\",\" column)* [\"from\" NAME] // comment\n"
      "column: NAME | \"a\"..\"c\" DIGITS\n"
      "NAME.2: /[a-z]+/i\n"
      "DIGITS: D~2..3\n"
      "D: \"0\"..\"9\"\n"
      "%ignore /\\s+/\n");
  for (const char* good : {"select x", "SELECT x , Y,c 12 from t", "selectx"})
    EXPECT_TRUE(matches(grammar, good)) << good;
  for (const char* bad : {"select", "select x y", "select a1 2", "select a1", "select a1234", "s elect x"})
    EXPECT_FALSE(matches(grammar, bad)) << bad;
}

TEST_F(Lark, RepeatsAndOptionals) {
  const auto grammar = compiler.lark("start: (\"ab\" | [\"c\"] \"d\")~2..3 e?\ne: \"\\u00e9\\n\"+\n");
  for (const char* good : {"abab", "cdd", "ababcd\xc3\xa9\n\xc3\xa9\n"})
    EXPECT_TRUE(matches(grammar, good)) << good;
  for (const char* bad : {"ab", "c", "abababab", "abab\xc3\xa9"}) EXPECT_FALSE(matches(grammar, bad)) << bad;
}

TEST_F(Lark, EveryCommonTerminalIsReadAndMatches) {
  const std::vector<std::pair<std::string, std::string>> samples = {{"DIGIT", "7"},
                                                                    {"HEXDIGIT", "f"},
                                                                    {"INT", "12"},
                                                                    {"SIGNED_INT", "-12"},
                                                                    {"DECIMAL", "1."},
                                                                    {"FLOAT", "1e5"},
                                                                    {"SIGNED_FLOAT", "-.5e-1"},
                                                                    {"NUMBER", "12"},
                                                                    {"SIGNED_NUMBER", "+1.5"},
                                                                    {"ESCAPED_STRING", "\"a\\\"b\""},
                                                                    {"LCASE_LETTER", "x"},
                                                                    {"UCASE_LETTER", "X"},
                                                                    {"LETTER", "q"},
                                                                    {"WORD", "word"},
                                                                    {"CNAME", "_a1"},
                                                                    {"WS_INLINE", " \t"},
                                                                    {"WS", "\n "},
                                                                    {"CR", "\r"},
                                                                    {"LF", "\n"},
                                                                    {"NEWLINE", "\r\n\n"},
                                                                    {"SH_COMMENT", "# x"},
                                                                    {"CPP_COMMENT", "// x"},
                                                                    {"C_COMMENT", "/* x **/"},
                                                                    {"SQL_COMMENT", "-- x"}};
  for (const auto& [name, sample] : samples) {
    const auto grammar = compiler.lark("start: " + name + "\n%import common (" + name + ")\n");
    EXPECT_TRUE(matches(grammar, sample)) << name;
    EXPECT_FALSE(matches(grammar, sample + "!\n!")) << name;
  }
}

TEST_F(Lark, ErrorsNameLineAndColumn) {
  EXPECT_EQ(error_of("start: a\n", ErrorKind::invalid_argument),
            "line 1, column 8: a is used here but not defined");
  EXPECT_EQ(error_of("a: \"x\"\n", ErrorKind::invalid_argument),
            "line 2, column 1: there is no rule named start");
  EXPECT_EQ(error_of("start: \"x\"\nstart: \"y\"\n", ErrorKind::invalid_argument),
            "line 2, column 1: start is defined twice");
  EXPECT_EQ(error_of("start: /a(?=b)/\n", ErrorKind::unsupported),
            "line 1, column 8: pattern, offset 1: look-ahead is not supported");
  EXPECT_EQ(error_of("start: T\nT: start\n", ErrorKind::invalid_argument),
            "line 2, column 4: a terminal cannot use the rule start");
  for (const char* bad : {"%declare X\n", "start: a{x}\n", "%import python.NAME\n", "start: /a/x\n",
                          "%import common.NOTHING\n"})
    error_of(bad, ErrorKind::unsupported);
  for (const char* bad : {"", "start", "start: (", "start: \"a", "start: /a", "start: \"b\"..\"a\"",
                          "start: \"a\"~3..2", "start: )", "start: \"\\q\"", "start: A\nA: B\nB:: C", "1: x"})
    error_of(bad, ErrorKind::invalid_argument);
}

}  // namespace
}  // namespace cairn::text
