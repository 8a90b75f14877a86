#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "text/loaders.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

// GPT-2's pipeline with four merges; bytes are tokens 0 to 255 in the order of the visible alphabet's code
// points.
std::string byte_level_json() {
  nlohmann::json vocab;
  std::vector<std::string> texts;
  for (int c = 0; c < 324; ++c) {
    const bool visible = (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0x143);
    if (!visible) continue;
    std::string text;
    append_utf8(text, uint32_t(c));
    texts.push_back(text);
  }
  for (const char* merged : {"he", "ll", "hell", "\u0120w"}) texts.push_back(merged);
  for (size_t i = 0; i < texts.size(); ++i) vocab[texts[i]] = i;
  return nlohmann::json{
      {"added_tokens",
       {{{"id", 260}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}},
        {{"id", 261}, {"content", "<b>"}, {"special", false}, {"normalized", false}, {"lstrip", true}},
        {{"id", 262}, {"content", "cat"}, {"special", false}, {"normalized", false}, {"single_word", true}}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "l l", "he ll", "\u0120 w"}}}}}
      .dump();
}

std::unique_ptr<Tokenizer> byte_level() {
  return std::make_unique<PipelineTokenizer>(parse_tokenizer_json(byte_level_json(), "test.json"));
}

TEST(ByteLevelBpe, MergesInRankOrder) {
  const auto tokenizer = byte_level();
  const TokenId o = *tokenizer->token_to_id("o"), w = *tokenizer->token_to_id("w");
  EXPECT_EQ(tokenizer->encode("hello wo"), (std::vector<TokenId>{258, o, 259, o}));
  EXPECT_EQ(tokenizer->encode("w"), (std::vector<TokenId>{w}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello wor\xc3\xa9\n")), "hello wor\xc3\xa9\n");
}

TEST(ByteLevelBpe, FindsAddedTokensAsTheirFlagsSay) {
  const auto tokenizer = byte_level();
  EXPECT_EQ(tokenizer->encode("<|end|>"), std::vector<TokenId>{260});
  EXPECT_EQ(tokenizer->encode("<|end|>", {.parse_special = false}).size(), 7u);
  EXPECT_EQ(tokenizer->encode("  \n<b>", {.parse_special = false}), std::vector<TokenId>{261});
  EXPECT_EQ(tokenizer->encode("cat"), std::vector<TokenId>{262});
  EXPECT_EQ(tokenizer->encode("cat!")[0], 262);
  EXPECT_NE(tokenizer->encode("cats")[0], 262);
  EXPECT_NE(tokenizer
                ->encode("\xc3\xa9"
                         "cat")
                .back(),
            262);
}

TEST(StreamDecoder, PartsJoinToTheWholeAndNeverSplitACharacter) {
  const auto tokenizer = byte_level();
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<TokenId> ids;
    if (round % 2) {  // real text with four-byte characters
      ids = tokenizer->encode("h\xf0\x9f\xa6\x99\xe2\x82\xac\xc3\xa9<|end|>\xf0\x9f\xa6\x99");
      ids.resize(random() % (ids.size() + 1));
    } else {
      for (size_t n = random() % 20; n > 0; --n) ids.push_back(TokenId(random() % 265));
    }
    for (bool skip : {true, false}) {
      StreamDecoder stream(*tokenizer, skip);
      std::string joined;
      for (TokenId id : ids) {
        const std::string part = stream.add(id);
        ASSERT_TRUE(is_valid_utf8(part));
        joined += part;
      }
      joined += stream.finish();
      ASSERT_EQ(joined, tokenizer->decode(ids, skip));
      ASSERT_TRUE(is_valid_utf8(joined));
    }
  }
}

TEST(StreamDecoder, GivesACharacterWithItsLastByteAndReplacesWhatStaysBroken) {
  const auto tokenizer = byte_level();
  const auto ids = tokenizer->encode("\xe2\x82\xac");
  ASSERT_EQ(ids.size(), 3u);
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.add(ids[0]), "");
  EXPECT_EQ(stream.add(ids[1]), "");
  EXPECT_EQ(stream.add(ids[2]), "\xe2\x82\xac");
  EXPECT_EQ(stream.add(ids[0]), "");
  EXPECT_EQ(stream.add(*tokenizer->token_to_id("h")), "\xef\xbf\xbdh");
  EXPECT_EQ(stream.add(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\xef\xbf\xbd");
}

std::string llama2c_file() {
  std::string bytes(4, '\0');
  const auto add = [&](float score, std::string_view text) {
    const int32_t length = int32_t(text.size());
    bytes.append(reinterpret_cast<const char*>(&score), 4)
        .append(reinterpret_cast<const char*>(&length), 4) += text;
  };
  for (int i = 0; i < 259; ++i) add(0, "placeholder");
  float score = 0;
  for (const char* text : {" t", "he", " the", " ", "t", "h", "e"}) add(score--, text);
  return bytes;
}

TEST(Llama2c, MergesByScoreWithByteFallbackAndDropsTheFirstSpace) {
  const PipelineTokenizer tokenizer(parse_llama2c_tokenizer(llama2c_file(), "tokenizer.bin"));
  EXPECT_EQ(tokenizer.encode("the", {}), (std::vector<TokenId>{1, 261}));
  EXPECT_EQ(tokenizer.encode("the the\xc3\xa9", {}), (std::vector<TokenId>{1, 261, 261, 3 + 0xc3, 3 + 0xa9}));
  EXPECT_EQ(tokenizer.encode("", {}), std::vector<TokenId>{1});
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("the the\xc3\xa9", {})), "the the\xc3\xa9");
  EXPECT_EQ(tokenizer.piece(261), " the");
  EXPECT_EQ(tokenizer.piece(3 + 0xc3), "\xc3");
}

TEST(Llama2c, RefusesEveryTruncation) {
  const std::string whole = llama2c_file();
  const size_t first = 4 + 259 * 19;  // below, the 259 fixed tokens are incomplete
  for (size_t size = 0; size < whole.size(); size += size < first - 50 ? 37 : 1) {
    try {
      parse_llama2c_tokenizer(std::string_view(whole).substr(0, size), "cut.bin");
      EXPECT_GE(size, first) << size;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_file);
      EXPECT_NE(std::string(error.what()).find("cut.bin"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace cairn::text
