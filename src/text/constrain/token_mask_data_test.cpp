// Masks over real vocabularies: every bit is what feeding the token's bytes says.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/testing.h"
#include "text/constrain/constrain_testing.h"
#include "text/constrain/grammar.h"

namespace cairn::text {
namespace {

using testing::expect_exact_mask;

const std::vector<GrammarSource>& sources() {
  using Kind = GrammarSource::Kind;
  static const std::vector<GrammarSource> all = {
      {Kind::json_schema,
       R"({"type":"object","properties":{"name":{"type":"string"},"id":{"type":"string","maxLength":12},"when":{"format":"date-time",
       "type":"string"},"n":{"type":"number","minimum":-5,"maximum":77.5},"more":{"type":"array","items":{"enum":["one","two",3]}}},
       "required":["name"]})"},
      {Kind::json_object, ""},
      {Kind::regex, "(?:[A-Z][a-z]*(?: [a-z]+)*\\. )+\\p{Lo}{2,70}"},
      {Kind::gbnf, "root ::= (word | space | \"{\" root \"}\")+\nword ::= [a-zA-Z]+\nspace ::= [ \\n]+\n"},
  };
  return all;
}

void check(const char* file, int states_each) {
  const std::string relative = std::string("tokenizers/") + file;
  CAIRN_NEED_DATA(relative);
  const auto tokenizer = load_tokenizer(cairn::testing::data_folder() / relative);
  GrammarCompiler compiler(*tokenizer, tokenizer->vocabulary_size());
  std::mt19937 random(9);
  for (const auto& source : sources()) {
    const auto grammar = compiler.compile(source);
    std::vector<uint32_t> bits((size_t(tokenizer->vocabulary_size()) + 31) / 32);
    int checked = 0;
    for (int round = 0; round < 20 && checked < states_each; ++round) {
      GrammarMatcher matcher(grammar);
      for (int step = 0; step < 30 && checked < states_each; ++step) {
        if (random() % 4 == 0) {
          expect_exact_mask(matcher, *tokenizer, std::string(file) + " " + source.text);
          ++checked;
        }
        matcher.fill_mask(bits);
        std::vector<TokenId> all;
        for (TokenId id = 0; id < tokenizer->vocabulary_size(); ++id)
          if (testing::allowed(bits, id)) {
            EXPECT_TRUE(!tokenizer->is_special(id) || matcher.at_end());
            all.push_back(id);
          }
        // Now and then what is rare: an end, a quote.
        if (random() % 3 == 0)
          std::sort(
              all.begin(), all.end(),
              [&](TokenId a, TokenId b) { return tokenizer->piece(a).size() < tokenizer->piece(b).size(); }),
              all.resize(std::min<size_t>(all.size(), 40));
        if (all.empty() || !matcher.accept(all[random() % all.size()])) break;
      }
    }
    EXPECT_GT(checked, 0) << file;  // few where the vocabulary cannot write what the grammar wants
  }
}

TEST(TokenMaskData, Llama3) { check("llama3/tiktoken.model", 8); }
TEST(TokenMaskData, Gpt2) { check("llama.cpp-vocab/ggml-vocab-gpt-2.gguf", 8); }
TEST(TokenMaskData, SentencePieceWithBytes) { check("llama2/tokenizer.model", 10); }
TEST(TokenMaskData, WordPiece) { check("bert/bert-base-uncased.json", 3); }

}  // namespace
}  // namespace cairn::text
