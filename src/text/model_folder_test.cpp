// Folders as they come from a hub: which file is read, and what the files beside it add.
#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/tokenizer.h"

namespace cairn::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class ModelFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("cairn_model_folder_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const char* name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  void write(const char* name, const json& document) { write(name, document.dump()); }

  void write_gpt2() {
    json vocab;
    for (int b = 0; b < 256; ++b) vocab[to_visible(std::string(1, char(b)))] = b;
    vocab["ab"] = 256;
    vocab["</s>"] = 257;
    vocab["<|im_end|>"] = 258;
    write("vocab.json", vocab);
    write("merges.txt", std::string("#version: 0.2\na b\n"));
  }

  fs::path folder_;
};

TEST_F(ModelFolder, VocabularyAndMergesWithABeginning) {
  write_gpt2();
  write("tokenizer_config.json", json{{"add_bos_token", true},
                                      {"bos_token", {{"content", "</s>"}, {"lstrip", false}}},
                                      {"eos_token", "</s>"},
                                      {"pad_token", nullptr},
                                      {"chat_template", "from the config"}});
  const auto tokenizer = load_tokenizer(folder_);
  EXPECT_EQ(tokenizer->encode("ab</s>"), (std::vector<TokenId>{257, 256, 257}));
  EXPECT_EQ(tokenizer->special().bos, 257);
  EXPECT_EQ(tokenizer->special().eos, 257);
  EXPECT_FALSE(tokenizer->special().pad);
  EXPECT_EQ(tokenizer->chat_template(), "from the config");
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{257, 256, 257}), "ab");
}

TEST_F(ModelFolder, WithChannelsTheEndOfAMessageIsNotTheEndOfTheAnswer) {
  const auto ends = [&](const std::vector<const char*>& added) {
    json document = {{"model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "a"}}}};
    for (const char* text : added)
      document["added_tokens"].push_back(
          {{"id", document["added_tokens"].size() + 1}, {"content", text}, {"special", true}});
    write("tokenizer.json", document);
    std::vector<std::string> texts;
    const auto tokenizer = load_tokenizer(folder_);
    for (TokenId id : tokenizer->special().end_of_turn) texts.push_back(tokenizer->piece(id));
    return texts;
  };
  EXPECT_EQ(ends({"<|end|>"}), (std::vector<std::string>{"<|end|>"}));
  EXPECT_EQ(ends({"<|end|>", "<|return|>", "<|call|>"}),
            (std::vector<std::string>{"<|return|>", "<|call|>"}));
}

TEST_F(ModelFolder, EndsOfTurnAndTemplatesFromTheFilesBeside) {
  write_gpt2();
  write("special_tokens_map.json",
        json{{"eos_token", "</s>"}, {"additional_special_tokens", {"<|im_end|>"}}});
  write("generation_config.json", json{{"eos_token_id", {258, 97}}});
  write("config.json", json{{"eos_token_id", 5}});  // counts only without a generation_config.json
  write(
      "tokenizer_config.json",
      json{{"chat_template",
            {{{"name", "tool_use"}, {"template", "tools"}}, {{"name", "default"}, {"template", "plain"}}}}});
  EXPECT_EQ(load_tokenizer(folder_)->special().end_of_turn, (std::vector<TokenId>{97, 257, 258}));
  EXPECT_EQ(load_tokenizer(folder_)->chat_template(), "plain");
  write("chat_template.jinja", std::string("from its own file"));
  EXPECT_EQ(load_tokenizer(folder_)->chat_template(), "from its own file");
}

TEST_F(ModelFolder, WordList) {
  write("vocab.txt", std::string("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhel\n##lo\r\n"));
  EXPECT_EQ(load_tokenizer(folder_)->encode("H\xc3\xa9llo x"), (std::vector<TokenId>{2, 4, 5, 1, 3}));
  write("tokenizer_config.json", json{{"do_lower_case", false}});
  EXPECT_EQ(load_tokenizer(folder_)->encode("Hello"), (std::vector<TokenId>{2, 1, 3}));
}

TEST_F(ModelFolder, ErrorsNameFolderAndFile) {
  const auto message = [&](const fs::path& path) -> std::string {
    try {
      load_tokenizer(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(folder_).find("no tokenizer here"), std::string::npos);
  EXPECT_NE(message(folder_ / "absent.json").find("absent.json"), std::string::npos);
  write("notes.xyz", std::string("text"));
  EXPECT_NE(message(folder_ / "notes.xyz").find("notes.xyz"), std::string::npos);
  write("vocab.json", json{{"a", 0}});
  EXPECT_NE(message(folder_).find("merges.txt"), std::string::npos);
  write("merges.txt", std::string("a b c\n"));
  EXPECT_NE(message(folder_).find("line 1"), std::string::npos);
  write_gpt2();
  write("tokenizer_config.json", std::string("{\"bos_token\": 5}"));
  EXPECT_NE(message(folder_).find("bos_token"), std::string::npos);
  write("tokenizer_config.json", std::string("{"));
  EXPECT_NE(message(folder_).find("tokenizer_config.json"), std::string::npos);
}

}  // namespace
}  // namespace cairn::text
