// Every set of expected ids in the shared test material whose vocabulary is there too.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "base/mapped_file.h"
#include "base/testing.h"
#include "formats/json_file.h"
#include "text/tokenizer.h"

namespace cairn::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path data(const char* relative) { return cairn::testing::data_folder() / "tokenizers" / relative; }

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t at = 0;
  for (size_t found; (found = text.find(separator, at)) != text.npos; at = found + separator.size())
    parts.push_back(text.substr(at, found - at));
  parts.push_back(text.substr(at));
  return parts;
}

std::vector<TokenId> parse_ids(const std::string& line) {
  std::vector<TokenId> ids;
  static const std::regex number("[0-9]+");
  for (std::sregex_iterator it(line.begin(), line.end(), number), end; it != end; ++it)
    ids.push_back(TokenId(std::stol(it->str())));
  return ids;
}

struct LlamaCppCase {
  const char* name;   // of the .inp and .out pair
  const char* vocab;  // relative to tokenizers/
};

class LlamaCppVocab : public ::testing::TestWithParam<LlamaCppCase> {};

TEST_P(LlamaCppVocab, GivesTheExpectedIds) {
  const std::string pair = std::string("llama.cpp-vocab/ggml-vocab-") + GetParam().name + ".gguf";
  CAIRN_NEED_DATA("tokenizers/" + pair + ".inp");
  CAIRN_NEED_DATA(std::string("tokenizers/") + GetParam().vocab);
  const auto tokenizer = load_tokenizer(data(GetParam().vocab));
  const auto texts = split(read_text_file(data((pair + ".inp").c_str())), "\n__ggml_vocab_test__\n");
  const auto lines = split(read_text_file(data((pair + ".out").c_str())), "\n");
  ASSERT_GE(lines.size(), texts.size() - 1);
  size_t checked = 0;
  for (size_t i = 0; i < texts.size() && i < lines.size(); ++i) {
    if (texts[i].empty() && i + 1 == texts.size()) break;  // after the last separator
    const EncodeOptions plain{.add_special = false, .parse_special = false};
    EXPECT_EQ(tokenizer->encode(texts[i], plain), parse_ids(lines[i]))
        << GetParam().name << " text " << i << ": " << texts[i];
    ++checked;
  }
  EXPECT_GE(checked, 40u);
}

// llama-bpe is the Llama 3 vocabulary, mpt is GPT-NeoX's: their GGUF files are too large for the material.
INSTANTIATE_TEST_SUITE_P(
    Data, LlamaCppVocab,
    ::testing::Values(LlamaCppCase{"bert-bge", "llama.cpp-vocab/ggml-vocab-bert-bge.gguf"},
                      LlamaCppCase{"deepseek-coder", "llama.cpp-vocab/ggml-vocab-deepseek-coder.gguf"},
                      LlamaCppCase{"gpt-2", "llama.cpp-vocab/ggml-vocab-gpt-2.gguf"},
                      LlamaCppCase{"llama-spm", "llama.cpp-vocab/ggml-vocab-llama-spm.gguf"},
                      LlamaCppCase{"llama-spm", "llama2/tokenizer.model"},
                      LlamaCppCase{"llama-spm", "llama2/tokenizer.bin"},
                      LlamaCppCase{"phi-3", "llama.cpp-vocab/ggml-vocab-phi-3.gguf"},
                      LlamaCppCase{"llama-bpe", "llama3/tiktoken.model"},
                      LlamaCppCase{"mpt", "gpt-neox/20B_tokenizer.json"}));

TEST(TiktokenData, TestPlans) {
  CAIRN_NEED_DATA("tokenizers/tiktoken/TestPlans.txt");
  const std::string plans = read_text_file(data("tiktoken/TestPlans.txt"));
  std::map<std::string, int> checked;
  for (const char* name : {"r50k_base", "cl100k_base", "o200k_base"}) {
    const auto tokenizer = load_tokenizer(data((std::string("tiktoken/") + name + ".tiktoken").c_str()));
    for (const std::string& plan : split(plans, "EncodingName: ")) {
      if (!plan.starts_with(std::string(name) + "\n")) continue;
      const size_t sample = plan.find("\nSample: ") + 9, encoded = plan.find("\nEncoded: ");
      ASSERT_NE(encoded, plan.npos);
      const std::string text = plan.substr(sample, encoded - sample);
      const auto want = parse_ids(plan.substr(encoded));
      EXPECT_EQ(tokenizer->encode(text), want) << name << ": " << text;
      EXPECT_EQ(tokenizer->decode(want, false), text);
      ++checked[name];
    }
  }
  EXPECT_EQ(checked,
            (std::map<std::string, int>{{"r50k_base", 64}, {"cl100k_base", 64}, {"o200k_base", 57}}));
}

TEST(BertData, TenThousandQuestions) {
  CAIRN_NEED_DATA("tokenizers/bert/question_tokens.json");
  CAIRN_NEED_DATA("tokenizers/bert/bert-base-uncased.json");
  const auto tokenizer = load_tokenizer(data("bert/bert-base-uncased.json"));
  const json texts = formats::read_json_file(data("bert/question_tokens.json"));
  const json ids = formats::read_json_file(data("bert/tokenized_questions.json"));
  ASSERT_EQ(texts.size(), ids.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto got = tokenizer->encode(texts[i]["original"].get<std::string>(), {.add_special = false});
    ASSERT_EQ(got, ids[i].get<std::vector<TokenId>>()) << texts[i]["original"];
    std::vector<TokenId> pieces;
    for (const auto& piece : texts[i]["wordpiece"])
      pieces.push_back(*tokenizer->token_to_id(piece.get<std::string>()));
    ASSERT_EQ(got, pieces);
  }
}

// What Python's BertTokenizer does to decoded text (clean_up_tokenization_spaces).
std::string clean_up(std::string text) {
  const std::pair<const char*, const char*> rules[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : rules) {
    const auto parts = split(text, from);
    text = parts[0];
    for (size_t i = 1; i < parts.size(); ++i) text += to + parts[i];
  }
  return text;
}

struct SwiftCase {
  const char* model;  // key in tokenizer_tests.json
  const char* vocab;
  std::vector<TokenId> before,
      after;    // ids around the text that the Python class adds and the file here does not
  bool decode;  // compare decoded texts too, after the Python class's clean-up
};

class TokenizerTestsJson : public ::testing::TestWithParam<SwiftCase> {};

TEST_P(TokenizerTestsJson, EncodesAndDecodes) {
  CAIRN_NEED_DATA("tokenizers/bert/tokenizer_tests.json");
  CAIRN_NEED_DATA(std::string("tokenizers/") + GetParam().vocab);
  const json cases = formats::read_json_file(data("bert/tokenizer_tests.json"));
  const auto tokenizer = load_tokenizer(data(GetParam().vocab));
  ASSERT_TRUE(cases.contains(GetParam().model));
  for (const json& one : cases[GetParam().model]) {
    const auto want = one["encoded"]["input_ids"].get<std::vector<TokenId>>();
    auto got = tokenizer->encode(one["input"].get<std::string>());
    got.insert(got.begin(), GetParam().before.begin(), GetParam().before.end());
    got.insert(got.end(), GetParam().after.begin(), GetParam().after.end());
    EXPECT_EQ(got, want) << one["input"];
    if (!GetParam().decode) continue;
    EXPECT_EQ(clean_up(tokenizer->decode(want, false)), one["decoded_with_special"].get<std::string>());
    EXPECT_EQ(clean_up(tokenizer->decode(want, true)), one["decoded_without_special"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Data, TokenizerTestsJson,
    ::testing::Values(
        SwiftCase{"bert-base-uncased", "bert/bert-base-uncased.json", {}, {}, true},
        SwiftCase{"google-bert/bert-base-uncased", "bert/bert-base-uncased.json", {}, {}, true},
        SwiftCase{"distilgpt2", "llama.cpp-vocab/ggml-vocab-gpt-2.gguf", {}, {}, false},
        SwiftCase{"coreml-projects/Llama-2-7b-chat-coreml", "llama2/tokenizer.model", {}, {}, false},
        SwiftCase{"pcuenq/Llama-3.2-1B-Instruct-tokenizer", "llama3/tiktoken.model", {}, {}, false},
        SwiftCase{
            "openai/whisper-large-v2", "whisper/multilingual.tiktoken", {50258, 50363}, {50257}, false}));

TEST(Llama3Data, KnowsItsSpecialTokensAndTemplate) {
  CAIRN_NEED_DATA("tokenizers/llama3/tiktoken.model");
  const auto tokenizer = load_tokenizer(data("llama3"));
  EXPECT_EQ(tokenizer->special().bos, 128000);
  EXPECT_EQ(tokenizer->special().eos, 128009);  // tokenizer_config.json of the instruct model says <|eot_id|>
  EXPECT_EQ(tokenizer->special().end_of_turn, (std::vector<TokenId>{128001, 128009}));
  EXPECT_EQ(tokenizer->encode("<|start_header_id|>a"), (std::vector<TokenId>{128000, 128006, 64}));
  ASSERT_TRUE(tokenizer->chat_template());
  EXPECT_NE(tokenizer->chat_template()->find("<|start_header_id|>"), std::string::npos);
  EXPECT_EQ(tokenizer->vocabulary_size(), 128256);
}

}  // namespace
}  // namespace cairn::text
