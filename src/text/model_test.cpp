// The models by themselves, against results worked out by hand.
#include "text/model.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "text/bpe.h"
#include "text/sentencepiece.h"
#include "text/unigram.h"
#include "text/utf8.h"
#include "text/word_piece.h"

namespace cairn::text {
namespace {

using Ids = std::vector<TokenId>;
using Tokens = std::vector<std::pair<TokenId, std::string_view>>;

Ids encode(const Model& model, std::string_view word) {
  Ids ids;
  model.encode(word, ids);
  return ids;
}

TEST(Merge, ShortAndLongWordsGiveTheSame) {
  // Random ranks over an alphabet of two: every pair of known strings merges when the joined string is known.
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    StringMap known;
    std::vector<std::string> texts = {"a", "b"};
    for (size_t i = 0; i < 30; ++i)
      texts.push_back(texts[random() % texts.size()] + texts[random() % texts.size()]);
    for (size_t i = 0; i < texts.size(); ++i) known.insert(texts[i], int32_t((i * 7) % 1000));
    std::string word;
    for (size_t n = random() % 60; n > 0; --n) word += random() % 3 ? 'a' : 'b';
    const auto lookup = [&](const Symbol& l, const Symbol& r) {
      const int32_t id = known.find(std::string_view(word).substr(l.begin, r.end - l.begin));
      return PairMap::Entry{id, id};
    };
    std::vector<Symbol> brief, lengthy;
    for (uint32_t i = 0; i < word.size(); ++i) brief.push_back({i, i + 1, known.find(word.substr(i, 1))});
    lengthy = brief;
    std::vector<PairMap::Entry> scratch;
    merge_short(brief, scratch, lookup);
    merge_long(lengthy, lookup);
    ASSERT_EQ(brief.size(), lengthy.size()) << word;
    for (size_t i = 0; i < brief.size(); ++i) ASSERT_EQ(brief[i].end, lengthy[i].end) << word;
  }
}

TEST(Bpe, CharactersWithByteFallbackAndUnknowns) {
  const Tokens tokens = {{0, "<unk>"}, {1, "a"}, {2, "b"}, {3, "ab"}, {4, "<0xC3>"}, {5, "<0xA9>"}};
  BpeOptions options{.byte_fallback = true, .unk = 0};
  const std::vector<Merge> merges = {{"a", "b"}};
  EXPECT_EQ(encode(Bpe(tokens, merges, options, ""), "ab\xc3\xa9xyb"), (Ids{3, 4, 5, 0, 0, 2}));
  options.fuse_unk = true;
  EXPECT_EQ(encode(Bpe(tokens, merges, options, ""), "xyb"), (Ids{0, 2}));
  options.unk = -1;
  EXPECT_EQ(encode(Bpe(tokens, merges, options, ""), "xyb"), (Ids{2}));
}

TEST(Bpe, SuffixAndPrefix) {
  const Tokens tokens = {{0, "a"}, {1, "b</w>"}, {2, "ab</w>"}, {3, "b"}, {4, "a</w>"}};
  const std::vector<Merge> merges = {{"a", "b</w>"}};
  EXPECT_EQ(encode(Bpe(tokens, merges, {.suffix = "</w>"}, ""), "ab"), Ids{2});
  EXPECT_EQ(encode(Bpe(tokens, merges, {.suffix = "</w>"}, ""), "aba"), (Ids{0, 3, 4}));
  EXPECT_EQ(encode(Bpe(tokens, merges, {.byte_level = true, .suffix = "</w>"}, ""), "ab"), Ids{2});
  const Tokens continued = {{0, "a"}, {1, "##b"}, {2, "ab"}};
  EXPECT_EQ(encode(Bpe(continued, {{"a", "##b"}}, {.prefix = "##"}, ""), "ab"), Ids{2});
}

TEST(Bpe, AWordThatIsATokenMustBeReachable) {
  const Tokens tokens = {{0, "a"}, {1, "b"}, {2, "c"}, {3, "ab"}, {4, "abc"}, {5, "bc"}};
  const std::vector<Merge> merges = {
      {"b", "c"}, {"a", "b"}, {"ab", "c"}};  // b c first: abc never comes about
  const BpeOptions plain{.byte_level = true}, whole{.byte_level = true, .ignore_merges = true};
  EXPECT_EQ(encode(Bpe(tokens, merges, plain, ""), "abc"), (Ids{0, 5}));
  EXPECT_EQ(encode(Bpe(tokens, merges, whole, ""), "abc"), Ids{4});
}

TEST(Unigram, TakesTheBestPathAndJoinsUnknowns) {
  const std::vector<UnigramPiece> pieces = {{"<unk>", 0}, {"a", -1}, {"b", -1}, {"ab", -1.5}, {"c", -5}};
  const Unigram model(pieces, 0, false, Unigram::Reference::huggingface, "");
  EXPECT_EQ(encode(model, "ab"), Ids{3});
  EXPECT_EQ(encode(model, "ba"), (Ids{2, 1}));
  EXPECT_EQ(encode(model, "xyab"), (Ids{0, 3}));
  EXPECT_EQ(encode(model, ""), Ids{});
}

TEST(WordPiece, LongestFirstOrUnknown) {
  const Tokens tokens = {{0, "[UNK]"}, {1, "un"}, {2, "##aff"}, {3, "##able"}, {4, "##a"}};
  const WordPiece model(tokens, 0, "##", 10, "");
  EXPECT_EQ(encode(model, "unaffable"), (Ids{1, 2, 3}));
  EXPECT_EQ(encode(model, "unaffx"), Ids{0});
  EXPECT_EQ(encode(model, "unaaaaaaaaa"), Ids{0});  // eleven characters
  EXPECT_EQ(encode(WordLevel({{0, "a"}}, 0, ""), "zz"), Ids{0});
  EXPECT_THROW(encode(WordLevel({{0, "a"}}, -1, ""), "zz"), Error);
}

SentencePieceModel small_model(bool bytes) {
  SentencePieceModel model;
  model.kind = SentencePieceModel::Kind::bpe;
  model.pieces = {{"<unk>", 0, PieceType::unknown}, {"</s>", 0, PieceType::control}};
  for (int b = 0; bytes && b < 256; ++b)
    model.pieces.push_back({token_of_byte(uint8_t(b)), 0, PieceType::byte});
  for (const char* text : {"\xe2\x96\x81", "a", "b",
                           "\xe2\x96\x81"
                           "a"})
    model.pieces.push_back({text, -float(model.pieces.size()), PieceType::normal});
  model.pieces.push_back({"ab", -1, PieceType::unused});
  model.pieces.push_back({"aba", 0, PieceType::user_defined});
  model.byte_fallback = bytes;
  model.rules.remove_extra_whitespaces = false;
  return model;
}

TEST(SentencePiece, UnusedPiecesAreTakenApartAndUserPiecesKept) {
  const PipelineTokenizer tokenizer(sentencepiece_pipeline(small_model(false), ""));
  EXPECT_EQ(tokenizer.encode("ab", {}), (Ids{2, 3, 4}));  // ab comes first and is unused
  EXPECT_EQ(tokenizer.encode("bab", {}), (Ids{2, 4, 3, 4}));
  EXPECT_EQ(tokenizer.encode("aba b", {}), (Ids{2, 7, 2, 4}));
  EXPECT_EQ(tokenizer.encode("xyb", {}), (Ids{2, 0, 4}));
  EXPECT_EQ(tokenizer.decode(Ids{0, 5, 4}), " \xe2\x81\x87  ab");
}

TEST(SentencePiece, DecodesBytesAndDropsTheDummyPrefix) {
  const PipelineTokenizer tokenizer(sentencepiece_pipeline(small_model(true), ""));
  const auto byte = [](int b) { return TokenId(2 + b); };
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\xe2\x82\xac a", {})), "a\xe2\x82\xac a");
  EXPECT_EQ(tokenizer.decode(Ids{byte(0xe2), byte(0x82)}), "\xef\xbf\xbd\xef\xbf\xbd");
  // A control token ends the run of bytes even when it is not shown.
  EXPECT_EQ(tokenizer.decode(Ids{byte(0xc3), 1, byte(0xa9)}), "\xef\xbf\xbd\xef\xbf\xbd");
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    Ids ids;
    for (size_t n = random() % 12; n > 0; --n)
      ids.push_back(TokenId(random() % uint32_t(tokenizer.vocabulary_size())));
    StreamDecoder stream(tokenizer);
    std::string joined;
    for (TokenId id : ids) {
      const std::string part = stream.add(id);
      ASSERT_TRUE(is_valid_utf8(part));
      joined += part;
    }
    ASSERT_EQ(joined + stream.finish(), tokenizer.decode(ids));
  }
}

TEST(AddedTokens, StripAndNormalize) {
  AddedTokens added;
  const auto lower = [](std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
    return out;
  };
  added.set({{.id = 1, .text = "<x>", .special = true, .rstrip = true},
             {.id = 2, .text = "<xy>", .special = true},
             {.id = 3, .text = "DAY", .normalized = true}},
            lower, "");
  const auto split = [&](std::string_view text, bool normalized) {
    std::string out;
    added.split(
        text, normalized, true, {},
        [&](std::string_view part, size_t) { out += "[" + std::string(part) + "]"; },
        [&](TokenId id) { out += std::to_string(id); });
    return out;
  };
  EXPECT_EQ(split("a<x> \xc2\xa0 b<xy> c<x", false), "[a]1[b]2[ c<x]");
  EXPECT_EQ(split("monday DAY", true), "[mon]3[ DAY]");
  EXPECT_EQ(added.find(TokenId(3))->decoded, "day");
}

}  // namespace
}  // namespace cairn::text
