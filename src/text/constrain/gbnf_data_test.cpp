// The grammars of the shared test material.
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/testing.h"
#include "text/constrain/constrain_testing.h"
#include "text/constrain/grammar.h"

namespace cairn::text {
namespace {

using testing::expect_exact_mask;
using testing::matches;
using testing::PieceTokenizer;

std::string grammar_file(const std::string& name) {
  return read_text_file(cairn::testing::data_folder() / "grammars" / (name + ".gbnf"));
}

const PieceTokenizer& tokenizer() {
  static const auto made = PieceTokenizer::bytes_and(
      {"the", " the", "\"a",  "\":",  "\", \"",   "\\n",  "{\"",          "}}",
       "]}",  "],",   "): ",  "\n\n", "  ",       "int ", "return ",      "= ",
       "1. ", "e4",   "Nf3",  "- ",   "\xe3\x81", "\x82", "\xe3\x81\x82", "\xe4\xb8\x80\xe4",
       "0.",  "12",   "true", "null", "alse",     "//"});
  return made;
}

struct Case {
  const char* grammar;
  std::vector<std::string> good, bad;
};

TEST(GbnfData, AcceptsAndRejects) {
  CAIRN_NEED_DATA("grammars");
  GrammarCompiler compiler(tokenizer(), tokenizer().vocabulary_size());
  const std::vector<Case> cases = {
      {"arithmetic", {"x=1\n", "a1*(2+3) = b\n", "x=1\ny=2\n"}, {"", "x=1", "1=", "=1\n", "x=1\n="}},
      {"c",
       {"", "int f(int x){return x;}", "float g(){x = 1;f (1, 2);while(x<1){}}", "int f(){//hi\n}",
        "int m(){if(a==b){}else{}/* a*b */}"},
       {"int", "f(){}", "int f({}", "int f(){return x}", "int f(){/* a */ "}},
      {"chess",
       {"1. e4 e5\n2. Nf3 Nc6\n", "1. O-O O-O-O\n12. exd5+ b8=Q#\n"},
       {"", "1. e4 e5\n", "2. e4 e5\n3. e4 e5\n"}},
      {"english", {"a", "hello world", "a b\nc."}, {"", " a", "a  b", "a ", "h\xc3\xa9"}},
      {"japanese", {"あ", "カタ カナ", "日本、"}, {"", "a", "あ a", "\xe3\x81"}},
      {"json",
       {"{}", "{\"a\": [1, 2.5e3, \"x\\n\\u00e9\", null, {\"b\":true}]}", "{\n\t\"a\":-0.1}"},
       {"[]", "{\"a\"}", "{\"a\":01}", "{\"a\":1,}", "{\"a\":\"\n\"}", "{\"a\":\"\x7f\"}"}},
      {"json_arr", {"[\n]", "[\n1,\n\"a\"]", "[\n{\"a\":[1, 2]}]"}, {"[]", "[1]", "{}", "[\n1,2]"}},
      {"list", {"- a\n", "- a b\n- c\n"}, {"", "a\n", "- \n", "- a", "- a\xc2\x85\n", "- a\xe2\x80\xa8\n"}},
  };
  for (const Case& c : cases) {
    const auto grammar = compiler.gbnf(grammar_file(c.grammar));
    for (const auto& text : c.good) EXPECT_TRUE(matches(grammar, text)) << c.grammar << ": " << text;
    for (const auto& text : c.bad) EXPECT_FALSE(matches(grammar, text)) << c.grammar << ": " << text;
  }
}

TEST(GbnfData, RandomTextsEndAndMatch) {
  CAIRN_NEED_DATA("grammars");
  GrammarCompiler compiler(tokenizer(), tokenizer().vocabulary_size());
  std::mt19937 random(7);
  for (const char* name : {"arithmetic", "c", "chess", "english", "japanese", "json", "json_arr", "list"}) {
    const auto grammar = compiler.gbnf(grammar_file(name));
    int finished = 0;
    for (int round = 0; round < 40; ++round) {
      GrammarMatcher matcher(grammar);
      bool ended = false;
      const std::string text = testing::random_text(matcher, tokenizer(), random, 300, ended);
      if (!ended) continue;
      ++finished;
      EXPECT_TRUE(matches(grammar, text)) << name << ": " << text;
    }
    EXPECT_GT(finished, 10) << name;
  }
}

TEST(GbnfData, MasksAreExact) {
  CAIRN_NEED_DATA("grammars");
  GrammarCompiler compiler(tokenizer(), tokenizer().vocabulary_size());
  std::mt19937 random(5);
  for (const char* name : {"arithmetic", "c", "chess", "english", "japanese", "json", "json_arr", "list"}) {
    const auto grammar = compiler.gbnf(grammar_file(name));
    for (int round = 0; round < 10; ++round) {
      GrammarMatcher matcher(grammar);
      for (int step = 0; step < 30; ++step) {
        expect_exact_mask(matcher, tokenizer(), name);
        bool ended = false;
        const int before = matcher.accepted();
        testing::random_text(matcher, tokenizer(), random, 1, ended);
        if (ended || matcher.accepted() == before) break;
      }
    }
  }
}

}  // namespace
}  // namespace cairn::text
