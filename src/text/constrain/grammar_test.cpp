#include "text/constrain/grammar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/error.h"
#include "text/constrain/constrain_testing.h"
#include "text/constrain/grammar_mask.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;
using testing::expect_exact_mask;
using testing::matches;
using testing::PieceTokenizer;

const PieceTokenizer& tokenizer() {
  static const auto made = PieceTokenizer::bytes_and(
      {"the",  " the", "\"a",   "\":",    "\", \"", "\\n",  "{\"",     "}}",    "]}",       "],",
       "null", "true", "12",    "0.",     "  ",     "\n\n", " \"",     "name",  "\xc3\xa9", "\xe2\x82",
       "\\u",  "00",   "<tool", "_call>", "ab",     "aaa",  "<think>", "2024-", "-01"},
      {"<|call|>", "<|other|>"});
  return made;
}

// Of this process: a busy machine makes no test fail.
double cpu_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

class Constrain : public ::testing::Test {
 protected:
  GrammarCompiler compiler{tokenizer(), tokenizer().vocabulary_size()};
  GrammarPtr schema(const char* text) { return compiler.json_schema(Json::parse(text)); }
  std::string error_of(const std::function<GrammarPtr()>& make, ErrorKind kind) {
    try {
      make();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return {};
  }
  std::string schema_error(const char* text, ErrorKind kind = ErrorKind::unsupported) {
    return error_of([&] { return schema(text); }, kind);
  }
  std::string regex_error(const char* text, ErrorKind kind = ErrorKind::unsupported) {
    return error_of([&] { return compiler.regex(text); }, kind);
  }
};

TEST_F(Constrain, RegexMatchesTheWholeText) {
  struct Case {
    const char* pattern;
    std::vector<std::string> good, bad;
  };
  const std::vector<Case> cases = {
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"^a|b$", {"a", "b"}, {"ab", ""}},
      {"(a|bc)*d?", {"", "a", "bcad"}, {"b", "dd"}},
      {"[a-c\\d]{2,3}", {"a1", "abc"}, {"a", "abcd", "ax"}},
      {"\\w+@\\w+\\.com", {"me@here.com"}, {"me@.com"}},
      {"[^\\x00-\\x1f\"]+", {"h\xc3\xa9", "\xf0\x9f\x98\x80"}, {"\"", "\xc3", "\xed\xa0\x80", "\xff"}},
      {"\\p{Lu}\\p{Ll}+", {"\xc3\x89t\xc3\xa9"}, {"\xc3\xa9t"}},
      {"(?i:straSSe)x", {"STRASSEx", "strassex"}, {"STRASSEX"}},
      {"a{0}b", {"b"}, {"ab"}},
      {"x{3,}", {"xxx", "xxxxxxx"}, {"xx"}},
      {"(?:ab?){2}", {"aa", "aba", "abab"}, {"a", "ababa"}},
      {"a{,3}", {"a{,3}"}, {"aa"}},
      {".", {"x", "\xe2\x82\xac"}, {"\n", "", "xx"}},
      {"[\\u00e9\\u{1F600}]", {"\xc3\xa9", "\xf0\x9f\x98\x80"}, {"e"}},
      {"a*?b+?", {"b", "aabb"}, {"a"}},
      {"()|a", {"", "a"}, {"aa"}},
  };
  for (const Case& c : cases) {
    const auto grammar = compiler.regex(c.pattern);
    for (const auto& text : c.good) EXPECT_TRUE(matches(grammar, text)) << c.pattern << ": " << text;
    for (const auto& text : c.bad) EXPECT_FALSE(matches(grammar, text)) << c.pattern << ": " << text;
  }
}

TEST_F(Constrain, RegexErrorsNameTheOffset) {
  EXPECT_EQ(regex_error("ab(?=c)"), "offset 2: look-ahead is not supported");
  EXPECT_EQ(regex_error("(?<!x)y"), "offset 0: look-behind is not supported");
  EXPECT_EQ(regex_error("(a)\\1"), "offset 3: a back-reference is not supported");
  EXPECT_EQ(regex_error("a\\b"), "offset 1: a word boundary is not supported");
  EXPECT_EQ(regex_error("a^b"), "offset 1: an anchor inside the pattern is not supported");
  EXPECT_EQ(regex_error("a++"), "offset 2: a possessive quantifier is not supported");
  EXPECT_EQ(regex_error("\\p{Foo}"), "offset 0: this Unicode class is not supported");
  for (const char* bad : {"(", ")", "[a", "*a", "a**", "a{3,2}", "[b-a]", "\\", "\\x1", "\\u{110000}", "\xff",
                          "\\ud800", "a{3000000000}"})
    regex_error(bad, ErrorKind::invalid_argument);
}

TEST_F(Constrain, LargeRepeatsAreCountedNotCopied) {
  const double start = cpu_seconds();
  const auto grammar = compiler.regex("(?:[a-z]{1,1000000000} ){2,1000000000}x{1000000000}");
  EXPECT_LT(cpu_seconds() - start, 0.1);
  GrammarMatcher matcher(grammar);
  EXPECT_FALSE(GrammarMatcher(grammar).accept_text("a  "));
  EXPECT_TRUE(matcher.accept_text("a b x"));
  EXPECT_FALSE(matcher.at_end());
  const auto exact = compiler.regex("[ab]{500}");
  EXPECT_TRUE(matches(exact, std::string(500, 'a')));
  EXPECT_FALSE(matches(exact, std::string(499, 'a')));
  EXPECT_FALSE(matches(exact, std::string(501, 'a')));
  const auto nullable = compiler.regex("(?:a?b?){100,200}");
  EXPECT_TRUE(matches(nullable, ""));
  EXPECT_TRUE(matches(nullable, std::string(200, 'a')));
  EXPECT_FALSE(matches(nullable, std::string(201, 'a')));
  const auto nested = compiler.regex("(?:(?:ab){100,200}c){100,101}");
  std::string once;
  for (int i = 0; i < 150; ++i) once += "ab";
  std::string all;
  for (int i = 0; i < 100; ++i) all += once + "c";
  EXPECT_TRUE(matches(nested, all));
  EXPECT_FALSE(matches(nested, all + "c"));
}

TEST_F(Constrain, GrammarsWithRecursion) {
  const auto arithmetic = compiler.gbnf(
      "root ::= sum\nsum ::= sum [+-] product | product\nproduct ::= product \"*\" atom | atom\n"
      "atom ::= [0-9]+ | \"(\" sum \")\" | call\ncall ::= atom \"()\"\n");  // begins with itself, also
                                                                            // through call
  for (const char* good : {"1", "1+2*3", "(1+2)*3-4", "((7))", "1()", "(1)()()*2"})
    EXPECT_TRUE(matches(arithmetic, good)) << good;
  for (const char* bad : {"", "+", "1+", "(1", "1)", "()", "1**2"})
    EXPECT_FALSE(matches(arithmetic, bad)) << bad;
  const auto ambiguous = compiler.gbnf("root ::= s\ns ::= s s | \"a\" | \"\"");
  EXPECT_TRUE(matches(ambiguous, std::string(60, 'a')));
  EXPECT_TRUE(matches(ambiguous, ""));
  EXPECT_FALSE(matches(ambiguous, "ab"));
  const auto right = compiler.gbnf("root ::= \"x\" root | \"y\"");
  EXPECT_TRUE(matches(right, std::string(20000, 'x') + "y"));
  GrammarMatcher matcher(right);
  EXPECT_TRUE(matcher.accept_text(std::string(100000, 'x')));
  EXPECT_LT(matcher.bytes(), 100'000u);  // a call that nothing follows takes no stack
  const auto palindromes = compiler.gbnf("root ::= \"a\" root \"a\" | \"b\" root \"b\" | \"c\"");
  EXPECT_TRUE(matches(palindromes, "abbcbba"));
  EXPECT_FALSE(matches(palindromes, "abbcbbb"));
  EXPECT_NE(error_of([&] { return compiler.gbnf("root ::= \"x\" root"); }, ErrorKind::invalid_argument)
                .find("nothing can match"),
            std::string::npos);
}

TEST_F(Constrain, GbnfErrorsNameLineAndColumn) {
  const auto error = [&](const char* text, ErrorKind kind = ErrorKind::invalid_argument) {
    return error_of([&] { return compiler.gbnf(text); }, kind);
  };
  EXPECT_EQ(error("root ::= a\nb ::= \"x\""), "line 1, column 10: the rule a is used here but not defined");
  EXPECT_EQ(error("x ::= \"a\""), "line 1, column 10: there is no rule named root");
  EXPECT_EQ(error("root ::= \"a\n\""), "line 1, column 10: this does not end in its line");
  EXPECT_EQ(error("root ::= (\"a\" "), "line 1, column 10: this ( has no )");
  EXPECT_EQ(error("root ::= \"a\"\nroot ::= \"b\""), "line 2, column 1: the rule root is defined twice");
  EXPECT_EQ(error("root ::= <think>", ErrorKind::unsupported),
            "line 1, column 10: tokens in a grammar are not supported");
  for (const char* bad : {"", "root", "root ::= [a", "root ::= \"\\q\"", "root ::= \"a\"{3,1}", "root ::= )",
                          "root = \"a\"", "root ::= \"a\"{", "root ::= [z-a]", "root ::= \"\\ud800\""})
    error(bad);
}

TEST_F(Constrain, SchemaBasics) {
  const auto person =
      schema(R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,
      "maximum":150},"tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":2}},"required":["name","age"],
      "additionalProperties":false})");
  for (const char* good : {R"({"name":"x","age":7})", R"({"name": "x", "age": 150, "tags": ["a", "b"]})",
                           "{\n  \"name\": \"x\",\n  \"age\": 0,\n  \"tags\": []\n}",
                           R"({"name":"\u00e9\ud83d\ude00\"","age":1})"})
    EXPECT_TRUE(matches(person, good)) << good;
  for (const char* bad :
       {"{}", R"({"age":7,"name":"x"})", R"({"name":"x","age":151})", R"({"name":"x","age":07})",
        R"({"name":"x","age":-1})", R"({"name":"x","age":7,"more":1})",
        R"({"name":"x","age":7,"tags":["c"]})", R"({"name":"x","age":7,})",
        R"({"name":"x","age":7,"tags":["a","a","a"]})", R"({"name":"\ud83d","age":1})",
        "{\"name\":\"\n\",\"age\":1}", "{\"name\":\"\xc3\",\"age\":1}", R"({"name":"x","age":7} )",
        R"({  "name":"x","age":7})"})
    EXPECT_FALSE(matches(person, bad)) << bad;
}

TEST_F(Constrain, OtherPropertiesNeverSpellNamedOnes) {
  const auto open = schema(R"({"properties":{"id":{"type":"integer"}},"required":["id"],"type":"object"})");
  EXPECT_TRUE(matches(open, R"({"id":1,"other":"x","idx":null,"i":2})"));
  EXPECT_FALSE(matches(open, R"({"id":1,"id":"x"})"));
  EXPECT_FALSE(matches(open, R"({"id":1,"\u0069d":"x"})"));
  EXPECT_FALSE(matches(open, R"({"other":1})"));
}

TEST_F(Constrain, RecursiveSchemas) {
  const auto tree = schema(
      R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"value":{"type":"integer"},
      "children":{"type":"array","items":{"$ref":"#/$defs/node"}},"next":{"$ref":"#/$defs/node"}},"required":["value"],
      "additionalProperties":false}}})");
  EXPECT_TRUE(
      matches(tree, R"({"value":1,"children":[{"value":2},{"value":3,"children":[]}],"next":{"value":4}})"));
  EXPECT_FALSE(matches(tree, R"({"value":1,"children":[{}]})"));
  EXPECT_NE(schema_error(R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
                         ErrorKind::invalid_argument)
                .find("nothing can match"),
            std::string::npos);
  EXPECT_EQ(
      schema_error(R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}})",
                   ErrorKind::invalid_argument),
      "#/$defs/a: the schema refers to itself without anything in between");
  EXPECT_EQ(schema_error(R"({"$ref":"#"})", ErrorKind::invalid_argument),
            "#: the schema refers to itself without anything in between");
}

TEST_F(Constrain, SchemaErrorsNameThePointer) {
  EXPECT_EQ(schema_error(R"({"properties":{"a/b":{"uniqueItems":true}}})"),
            "#/properties/a~1b/uniqueItems: uniqueItems is not supported");
  EXPECT_EQ(schema_error(R"({"$defs":{"x":{"not":{}}},"items":{"$ref":"#/$defs/x"}})"),
            "#/$defs/x/not: not is not supported");
  EXPECT_EQ(schema_error(R"({"frobnicate":1})"), "#/frobnicate: frobnicate is not supported");
  EXPECT_EQ(schema_error(R"({"type":"string","format":"color"})"),
            "#/format: format \"color\" is not supported");
  EXPECT_EQ(schema_error("{\"type\":\"string\",\"pattern\":\"a(?=b)\"}"),
            "#/pattern: offset 1: look-ahead is not supported");
  EXPECT_EQ(schema_error(R"({"$ref":"http://example.com/x"})"),
            "#/$ref: $ref to another document is not supported");
  EXPECT_EQ(schema_error(R"({"$ref":"#/nowhere"})", ErrorKind::invalid_argument),
            "#/$ref: there is nothing at #/nowhere");
  EXPECT_EQ(schema_error(R"({"items":{"type":"text"}})", ErrorKind::invalid_argument),
            "#/items/type: must be one or a list of null, boolean, integer, number, string, array, object");
  EXPECT_EQ(schema_error(R"({"allOf":[{"minLength":-1}]})", ErrorKind::invalid_argument),
            "#/allOf/0/minLength: must be a whole number, 0 or more");
  EXPECT_NE(schema_error(R"({"oneOf":[{"type":"integer"},{"type":"number"}]})").find("#/oneOf: "),
            std::string::npos);
  for (const char* bad :
       {"1", "null", "[]", "\"x\"", R"({"type":1})", R"({"enum":[]})", R"({"properties":[]})",
        R"({"required":"a"})", R"({"anyOf":{}})", R"({"minimum":"1"})", R"({"multipleOf":0})",
        R"({"maxItems":1.5})", R"({"pattern":1})", R"({"items":3})", R"({"$ref":1})",
        R"({"minLength":1e300})", R"({"type":"string","enum":[1]})",
        R"({"type":"string","minLength":3,"maxLength":2})", "false"})
    schema_error(bad, ErrorKind::invalid_argument);
}

TEST_F(Constrain, CombinedSchemas) {
  const auto all =
      schema(R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
      {"properties":{"a":{"maximum":5},"b":{"type":"boolean"}},"required":["b"],"additionalProperties":false}]})");
  EXPECT_TRUE(matches(all, R"({"a":5,"b":true})"));
  EXPECT_FALSE(matches(all, R"({"a":6,"b":true})"));
  EXPECT_FALSE(matches(all, R"({"a":5,"b":true,"c":1})"));
  const auto one = schema(
      R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"x"},"v":{"type":"integer"}},"required":["kind"]},
      {"type":"object","properties":{"kind":{"const":"y"},"w":{"type":"string"}},"required":["kind"]}]})");
  EXPECT_TRUE(matches(one, R"({"kind":"x","v":1})"));
  EXPECT_TRUE(matches(one, R"({"kind":"y","w":"1"})"));
  EXPECT_FALSE(matches(one, R"({"kind":"y","w":1})"));
  EXPECT_FALSE(matches(one, R"({"kind":"z"})"));
  const auto text = schema(
      R"({"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":4,"enum":["ab","ABC","abcde","abc"]})");
  EXPECT_TRUE(matches(text, "\"ab\""));
  EXPECT_TRUE(matches(text, "\"abc\""));
  EXPECT_FALSE(matches(text, "\"ABC\""));
  EXPECT_FALSE(matches(text, "\"abcde\""));
  const auto limited = schema(R"({"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":4})");
  for (const char* good : {"\"ab\"", "\"abcd\""}) EXPECT_TRUE(matches(limited, good));
  for (const char* bad : {"\"a\"", "\"abcde\"", "\"aB\""}) EXPECT_FALSE(matches(limited, bad));
  const auto map = schema(
      R"({"type":"object","patternProperties":{"^n_":{"type":"integer"}},"additionalProperties":{"type":"string"},
      "propertyNames":{"maxLength":4},"minProperties":1,"maxProperties":2})");
  for (const char* good : {R"({"n_a":1})", R"({"ab":"x","n_":2})"}) EXPECT_TRUE(matches(map, good)) << good;
  for (const char* bad :
       {"{}", R"({"n_a":"x"})", R"({"ab":1})", R"({"abcde":"x"})", R"({"a":"","b":"","c":""})"})
    EXPECT_FALSE(matches(map, bad)) << bad;
}

TEST_F(Constrain, NumbersBetweenBounds) {
  std::mt19937 random(11);
  const auto draw = [&](int digits) {
    const int whole = int(random() % 2001) - 1000;
    return digits == 0 ? Json(whole) : Json(whole / 16.0);
  };
  for (int round = 0; round < 150; ++round) {
    const int digits = int(random() % 2);
    const Json a = draw(digits), b = draw(digits);
    const bool ordered = a.get<double>() <= b.get<double>();
    const Json low = ordered ? a : b, high = ordered ? b : a;
    const bool open_low = random() % 3 == 0, open_high = random() % 3 == 0;
    Json s = {{"type", random() % 2 ? "number" : "integer"}};
    s[open_low ? "exclusiveMinimum" : "minimum"] = low;
    s[open_high ? "exclusiveMaximum" : "maximum"] = high;
    const int step = random() % 3 ? 0 : int(random() % 9) + 1;
    if (step) s["multipleOf"] = step / (digits ? 4.0 : 1.0);
    GrammarPtr grammar;
    try {
      grammar = compiler.json_schema(s);
    } catch (const Error&) {
      grammar = nullptr;  // nothing between the bounds
    }
    for (int i = 0; i < 60; ++i) {
      const Json v = i < 2 ? (i ? low : high) : draw(i % 2);
      const double x = v.get<double>();
      bool fits = (open_low ? x > low.get<double>() : x >= low.get<double>()) &&
                  (open_high ? x < high.get<double>() : x <= high.get<double>());
      if (s["type"] == "integer") fits = fits && x == std::floor(x);
      if (step) fits = fits && std::fmod(x, s["multipleOf"].get<double>()) == 0;
      const std::string text = x == std::floor(x) ? std::to_string(int(x)) : v.dump();
      EXPECT_EQ(grammar != nullptr && matches(grammar, text), fits) << s.dump() << " " << text;
    }
  }
}

TEST_F(Constrain, MasksAreExactInSchemas) {
  const std::vector<const char*> schemas = {
      R"({"type":"object","properties":{"name":{"type":"string"},"n":{"type":"number"},"date":{"type":"string","format":"date"}}})",
      R"({"type":"array","items":{"type":"string","minLength":1,"maxLength":6},"minItems":1,"maxItems":3})",
      R"({"anyOf":[{"type":"string","maxLength":40},{"type":"null"},{"type":"array"}]})",
      R"({"type":"string","pattern":"^(ab|aaa)+$"})",
      R"({"enum":["the","the name","name",12,{"a":[1]}]})",
      "true"};
  std::mt19937 random(3);
  for (const char* text : schemas) {
    const auto grammar = schema(text);
    for (int round = 0; round < 12; ++round) {
      GrammarMatcher matcher(grammar);
      for (int step = 0; step < 25; ++step) {
        expect_exact_mask(matcher, tokenizer(), text);
        const int before = matcher.accepted();
        bool ended = false;
        testing::random_text(matcher, tokenizer(), random, 1, ended);
        if (matcher.accepted() == before) break;
      }
    }
  }
}

TEST_F(Constrain, EndAndRollback) {
  const auto grammar = compiler.regex("ab?");
  GrammarMatcher matcher(grammar);
  std::vector<uint32_t> bits((size_t(tokenizer().vocabulary_size()) + 31) / 32);
  EXPECT_FALSE(matcher.at_end());
  EXPECT_FALSE(matcher.accept(tokenizer().end()));
  EXPECT_TRUE(matcher.accept('a'));
  EXPECT_TRUE(matcher.at_end());
  EXPECT_FALSE(matcher.must_end());
  matcher.fill_mask(bits);
  EXPECT_TRUE(testing::allowed(bits, tokenizer().end()));
  EXPECT_TRUE(testing::allowed(bits, 'b'));
  EXPECT_FALSE(testing::allowed(bits, 'a'));
  EXPECT_TRUE(matcher.accept('b'));
  EXPECT_TRUE(matcher.must_end());
  EXPECT_TRUE(matcher.accept(tokenizer().end()));
  EXPECT_FALSE(matcher.accept('b'));
  matcher.fill_mask(bits);
  EXPECT_TRUE(testing::allowed(bits, tokenizer().end()));
  EXPECT_FALSE(testing::allowed(bits, 'b'));
  EXPECT_TRUE(matcher.accept(tokenizer().end()));
  matcher.rollback(1);
  EXPECT_FALSE(matcher.accept('b'));
  matcher.rollback(3);
  EXPECT_EQ(matcher.accepted(), 0);
  EXPECT_FALSE(matcher.at_end());
  EXPECT_TRUE(matcher.accept(*tokenizer().token_to_id("ab")));
  EXPECT_TRUE(matcher.must_end());
  EXPECT_FALSE(matcher.accept(-1));
  EXPECT_FALSE(matcher.accept(1 << 20));
}

TEST_F(Constrain, SpecialTokensAreNoText) {
  const auto grammar = compiler.regex("[^\\n]*");
  GrammarMatcher matcher(grammar);
  std::vector<uint32_t> bits((size_t(tokenizer().vocabulary_size()) + 31) / 32);
  matcher.fill_mask(bits);
  EXPECT_FALSE(testing::allowed(bits, *tokenizer().token_to_id("<|call|>")));
  EXPECT_TRUE(testing::allowed(bits, tokenizer().end()));
  EXPECT_FALSE(matcher.accept(*tokenizer().token_to_id("<|call|>")));
  EXPECT_TRUE(matcher.accept_text("<|call|>"));  // spelt, it is text
}

TEST_F(Constrain, ForcedTextIsADraft) {
  const auto grammar = schema(
      R"({"type":"object","properties":{"name":{"enum":["the end"]}},"required":["name"],"additionalProperties":false})");
  GrammarMatcher matcher(grammar);
  ASSERT_TRUE(matcher.accept('{'));
  EXPECT_TRUE(matcher.forced().empty());  // white space may come
  ASSERT_TRUE(matcher.accept('"'));
  std::string text;
  for (const TokenId id : matcher.forced()) {
    ASSERT_TRUE(matcher.accept(id));
    text += tokenizer().piece(id);
  }
  EXPECT_EQ(text, "name");  // "\":" comes last and is left out
}

TEST_F(Constrain, TaggedTextIsFreeUntilATagBegins) {
  const GrammarSource integer{GrammarSource::Kind::json_schema, R"({"type":"integer"})"};
  const GrammarSource word{GrammarSource::Kind::regex, "[a-z]+"};
  const std::vector<GrammarCompiler::Tagged> tags = {{"<tool_call>", integer, "</tool_call>"},
                                                     {"<tool_word>", word, "</w>"}};
  const auto repeated = compiler.tagged(tags, false, true);
  for (const char* good :
       {"", "hello <tool_", "<tool_call>12</tool_call>", "x<<tool_call>1</tool_call> y <tool_word>ab</w>z"})
    EXPECT_TRUE(matches(repeated, good)) << good;
  for (const char* bad : {"<tool_call>", "<tool_call>x", "<tool_call>1</tool_call", "<tool_word>1</w>",
                          "<tool_call>1 2</tool_call>"})
    EXPECT_FALSE(matches(repeated, bad)) << bad;
  const auto once = compiler.tagged(tags, false, false);
  EXPECT_TRUE(matches(once, "a<tool_call>1</tool_call>"));
  EXPECT_FALSE(matches(once, "a<tool_call>1</tool_call>b"));
  const auto must = compiler.tagged(tags, true, true);
  EXPECT_TRUE(matches(must, "<tool_call>1</tool_call>\n<tool_word>a</w>"));
  EXPECT_FALSE(matches(must, ""));
  EXPECT_FALSE(matches(must, "a<tool_call>1</tool_call>"));

  // A beginning that spells a special token needs that token.
  const TokenId call = *tokenizer().token_to_id("<|call|>"), other = *tokenizer().token_to_id("<|other|>");
  const auto special = compiler.tagged({{"<|call|>", integer, ""}}, false, true);
  GrammarMatcher matcher(special);
  EXPECT_TRUE(matcher.accept_text("<|call|>x"));
  EXPECT_TRUE(matcher.accept(other));  // free text is any answer's
  EXPECT_TRUE(matcher.accept(call));
  EXPECT_FALSE(matcher.accept(other));
  EXPECT_FALSE(matcher.at_end());
  expect_exact_mask(matcher, tokenizer(), "in the tag");
  EXPECT_TRUE(matcher.accept('7'));
  EXPECT_TRUE(matcher.at_end());
  expect_exact_mask(matcher, tokenizer(), "after the tag");
  EXPECT_TRUE(matcher.accept('x'));
  EXPECT_NE(error_of(
                [&] {
                  return compiler.tagged({{"a", {GrammarSource::Kind::json_schema, "{\"not\":1}"}, ""}}, true,
                                         true);
                },
                ErrorKind::unsupported)
                .find("tag 0: #/not"),
            std::string::npos);

  // No answer goes on after a token that ends it, so that nothing can begin with one.
  EXPECT_NE(error_of(
                [&] {
                  return compiler.tagged({{"a<|end|>", integer, ""}}, true, true);
                },
                ErrorKind::invalid_argument)
                .find("tag 0: what begins it, \"a<|end|>\", holds the token \"<|end|>\""),
            std::string::npos);
}

TEST_F(Constrain, GrammarMaskOnLogits) {
  const int32_t size = tokenizer().vocabulary_size();
  std::mt19937 random(1);
  for (const size_t n : {size_t(1), size_t(31), size_t(32), size_t(100), size_t(257), size_t(1000)}) {
    std::vector<uint32_t> bits((n + 31) / 32);
    for (auto& word : bits)
      word = random() % 4 == 0 ? 0xffffffff : random() % 4 == 0 ? 0 : uint32_t(random());
    std::vector<float> logits(n + 3);
    for (auto& x : logits) x = float(random() % 100);
    const auto before = logits;
    apply_mask(bits, logits);
    for (size_t i = 0; i < logits.size(); ++i) {
      const bool on = i / 32 < bits.size() && bits[i / 32] >> (i % 32) & 1;
      EXPECT_EQ(logits[i], on ? before[i] : -std::numeric_limits<float>::infinity()) << n << " " << i;
    }
  }
  GrammarMask mask(compiler.regex("ab"), size);
  SamplingParams params;
  Sampler sampler(params, size, 0);
  sampler.set_mask(&mask);
  std::vector<float> logits(static_cast<size_t>(size), 1.0f);
  logits['b'] = 5;
  EXPECT_EQ(sampler.sample(logits), 'a');
  EXPECT_THROW(mask.accept('b'), Error);
}

TEST_F(Constrain, CacheIsKeptAndBounded) {
  GrammarCompiler small(tokenizer(), tokenizer().vocabulary_size(), 1 << 20);
  const auto first = small.regex("a0");
  EXPECT_EQ(small.regex("a0"), first);
  EXPECT_EQ(small.stats().reused, 1u);
  for (int i = 0; i < 3000; ++i) {
    GrammarMatcher matcher(
        small.json_schema(Json{{"type", "string"}, {"pattern", "^x" + std::to_string(i) + "$"}}));
    std::vector<uint32_t> bits((size_t(tokenizer().vocabulary_size()) + 31) / 32);
    matcher.fill_mask(bits);
    ASSERT_LE(small.stats().bytes, size_t(1) << 20);
  }
  EXPECT_NE(small.regex("a0"), first);  // went, and was made again
  EXPECT_GT(small.stats().grammars, 10u);
}

TEST_F(Constrain, HostileGrammarsEndSoon) {
  const auto soon = [&](const std::function<void()>& run, const std::string& name) {
    const double start = cpu_seconds();
    try {
      run();
    } catch (const Error&) {
    }
    EXPECT_LT(cpu_seconds() - start, 3) << name;
  };
  soon([&] { compiler.regex(std::string(100'000, '(')); }, "groups");
  std::string doubling = "a";
  for (int i = 0; i < 60; ++i) doubling = "(" + doubling + ")" + "{2}";
  soon([&] { compiler.regex(doubling); }, "nested repeats");
  soon([&] { compiler.regex(std::string(500'000, '[') + "a"); }, "brackets");
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 20'000; ++i)
    chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + " r" + std::to_string(i + 1) + "\n";
  chain += "r20000 ::= \"a\"\n";
  soon([&] { compiler.gbnf(chain); }, "doubling rules");
  Json deep = true;
  for (int i = 0; i < 300; ++i) deep = Json{{"items", deep}};
  soon([&] { compiler.json_schema(deep); }, "deep schema");
  Json any = {{"type", "integer"}};
  Json product;
  for (int i = 0; i < 30; ++i)
    product["allOf"].push_back({{"anyOf", {any, {{"type", "string"}}, {{"type", "null"}}}}});
  soon([&] { compiler.json_schema(product); }, "product of alternatives");
  soon(
      [&] {
        compiler.json_schema(Json{{"type", "string"}, {"minLength", 2'000'000'000}, {"pattern", "a"}});
      },
      "length and pattern");
  soon(
      [&] {
        compiler.json_schema(Json{{"type", "string"}, {"pattern", "(a|b)*a(a|b){30}"}, {"maxLength", 500}});
      },
      "exponential pattern");
  soon([&] { compiler.json_schema(Json{{"type", "integer"}, {"multipleOf", 123456789}}); }, "large step");
  Json wide = {{"type", "object"}};
  for (int i = 0; i < 20'000; ++i) wide["properties"]["property" + std::to_string(i)] = {{"type", "integer"}};
  soon([&] { compiler.json_schema(wide); }, "many properties");
  const auto hard = compiler.gbnf(
      "root ::= (a | b)*\na ::= \"x\" a | \"x\" b | \"x\"\nb ::= \"x\" b \"x\" | \"x\" a \"x\" | \"x\"");
  // Every step is bounded; in the end the answer is.
  GrammarMatcher matcher(hard);
  bool given_up = false;
  for (int i = 0; i < 2000 && !given_up; ++i)
    soon(
        [&] {
          try {
            EXPECT_TRUE(matcher.accept('x'));
          } catch (const Error&) {
            given_up = true;
          }
        },
        "ambiguous");
  EXPECT_TRUE(given_up);
}

TEST_F(Constrain, OneGrammarInManyThreads) {
  const auto grammar =
      schema(R"({"type":"object","properties":{"a":{"type":"string","maxLength":20},"b":{"type":"array"}}})");
  std::vector<std::thread> threads;
  std::vector<std::vector<uint32_t>> last(4);
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 5; ++round) {
        GrammarMatcher matcher(grammar);
        last[t].resize((size_t(tokenizer().vocabulary_size()) + 31) / 32);
        for (const char c : std::string_view("{\"a\":\"hello\",\"b\":[1,{\"c")) {
          matcher.fill_mask(last[t]);
          matcher.accept(TokenId(uint8_t(c)));
        }
        matcher.fill_mask(last[t]);
      }
    });
  for (auto& thread : threads) thread.join();
  for (const auto& bits : last) EXPECT_EQ(bits, last[0]);
}

}  // namespace
}  // namespace cairn::text
