// Files made to break a reader: each must end in an Error that names the file, or in well-defined behaviour.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "formats/gguf.h"
#include "text/byte_level.h"
#include "text/loaders.h"
#include "text/sentencepiece.h"
#include "text/unigram.h"

namespace cairn::text {
namespace {

using nlohmann::json;

template <typename F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

#define EXPECT_REFUSED(expression, part)                                        \
  do {                                                                          \
    const std::string message = error_of([&] { expression; });                  \
    EXPECT_NE(message.find(part), std::string::npos) << "message: " << message; \
  } while (false)

json bpe_document() {
  json vocab;
  for (int b = 0; b < 256; ++b) vocab[to_visible(std::string(1, char(b)))] = b;
  vocab["ab"] = 256;
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b"}}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}}};
}

std::unique_ptr<Tokenizer> load(const json& document) {
  return std::make_unique<PipelineTokenizer>(parse_tokenizer_json(document.dump(), "bad.json"));
}

TEST(HostileJson, EveryWrongTypeIsRefused) {
  const json good = bpe_document();
  ASSERT_EQ(load(good)->encode("ab"), std::vector<TokenId>{256});
  for (const char* pointer :
       {"/model", "/model/type", "/model/vocab", "/model/merges", "/model/merges/0", "/model/vocab/a",
        "/pre_tokenizer", "/pre_tokenizer/type", "/decoder", "/decoder/type"}) {
    for (const json& wrong :
         {json(17.5), json(true), json(json::array({1})), json({{"x", 1}}), json("nonsense"), json(-3)}) {
      json bad = good;
      bad[json::json_pointer(pointer)] = wrong;
      const std::string message = error_of([&] { load(bad); });
      EXPECT_NE(message.find("bad.json"), std::string::npos) << pointer << " = " << wrong << ": " << message;
    }
  }
}

TEST(HostileJson, IdsAndMerges) {
  json bad = bpe_document();
  bad["model"]["vocab"]["huge"] = 2000000000;
  EXPECT_REFUSED(load(bad), "2000000000");
  bad = bpe_document();
  bad["model"]["vocab"]["wide"] = 1ull << 40;
  EXPECT_REFUSED(load(bad), "wide");
  bad = bpe_document();
  bad["model"]["merges"] = {"a b", "a unknown"};
  EXPECT_REFUSED(load(bad), "merge 1");
  bad["model"]["merges"] = {"a b c"};
  EXPECT_REFUSED(load(bad), "merges/0");
  bad["model"]["merges"] = {"ab"};
  EXPECT_REFUSED(load(bad), "merges/0");
  bad = bpe_document();
  bad["added_tokens"] = {{{"id", -1}, {"content", "<x>"}}};
  EXPECT_REFUSED(load(bad), "-1");
  bad["added_tokens"] = {{{"id", 300}, {"content", std::string(70000, 'x')}}};
  EXPECT_REFUSED(load(bad), "70000");
  bad = bpe_document();
  bad["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"[CLS]", 999}}, {"sep", {"[SEP]", 998}}};
  EXPECT_REFUSED(load(bad), "999");
  EXPECT_REFUSED(parse_tokenizer_json("{\"model\":", "bad.json"), "bad.json");
  EXPECT_REFUSED(parse_tokenizer_json(std::string(100000, '['), "bad.json"), "bad.json");
}

TEST(HostileJson, TokensOfEveryLengthAndSeveralIdsForOneText) {
  json document = bpe_document();
  document["model"]["vocab"][""] = 257;
  document["model"]["vocab"][std::string(70000, 'z')] = 258;
  const auto tokenizer = load(document);
  EXPECT_EQ(tokenizer->encode(""), std::vector<TokenId>{});
  EXPECT_EQ(tokenizer->encode(std::string(70000, 'z')).size(), 70000u);  // no merges lead to it
  EXPECT_EQ(tokenizer->decode(std::vector<TokenId>{257, 97, -5, 1 << 30}), "a");
  EXPECT_EQ(tokenizer->piece(-1), "");
  document["model"]["ignore_merges"] = true;
  EXPECT_EQ(load(document)->encode(std::string(70000, 'z')), std::vector<TokenId>{258});
}

TEST(HostileJson, LongWordsMergeInBoundedTime) {
  json document = bpe_document();
  document["model"]["vocab"]["aa"] = 257;
  document["model"]["vocab"]["aaaa"] = 258;
  document["model"]["merges"] = {"a a", "aa aa"};
  const auto ids = load(document)->encode(std::string(1000001, 'a'));
  EXPECT_EQ(ids.size(), 250001u);
  EXPECT_EQ(ids.front(), 258);
  EXPECT_EQ(ids.back(), 97);
}

TEST(HostileJson, StepsThatGrowTheTextAreStopped) {
  json bad = bpe_document();
  json doubling = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  bad["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::vector<json>(60, doubling)}};
  EXPECT_REFUSED(load(bad)->encode("a"), "grow");
  bad["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::vector<json>(300, doubling)}};
  EXPECT_REFUSED(load(bad), "300 steps");
  bad = bpe_document();
  bad["pre_tokenizer"] = {{"type", "Sequence"},
                          {"pretokenizers", std::vector<json>(60, bad["pre_tokenizer"])}};
  EXPECT_REFUSED(load(bad)->encode("\xc3\xa9"), "grow");
}

std::string spm_piece(std::string_view text, float score, int type) {
  std::string piece = "\x0a";
  piece += char(text.size());
  piece += text;
  piece += "\x15";
  piece.append(reinterpret_cast<const char*>(&score), 4);
  piece += "\x18";
  piece += char(type);
  std::string field = "\x0a";
  field += char(piece.size());
  return field + piece;
}

// BPE with byte fallback when all 256 byte pieces are there.
std::string spm_file(const std::vector<std::string>& byte_pieces, bool fallback) {
  std::string file = spm_piece("<unk>", 0, 2) + spm_piece("<s>", 0, 3);
  for (const std::string& text : byte_pieces) file += spm_piece(text, 0, 6);
  file += spm_piece("a", -1, 1) + spm_piece("b", -2, 1) + spm_piece("ab", -3, 1);
  file += std::string("\x12\x05\x18\x02\x98\x02", 6) +
          char(fallback);                              // trainer_spec: model_type 2, byte_fallback
  file += std::string("\x1a\x04\x18\x00\x20\x00", 6);  // normalizer_spec: no dummy prefix, no trimming
  return file;
}

Pipeline load_spm(std::string_view file) {
  return sentencepiece_pipeline(parse_sentencepiece_model(file, "bad.model"), "bad.model");
}

std::vector<std::string> all_bytes() {
  std::vector<std::string> pieces;
  for (int b = 0; b < 256; ++b) pieces.push_back(token_of_byte(uint8_t(b)));
  return pieces;
}

TEST(HostileSentencePiece, ByteTokensMustBeExact) {
  const PipelineTokenizer good(load_spm(spm_file(all_bytes(), true)));
  EXPECT_EQ(good.encode("abc", {}), (std::vector<TokenId>{260, 2 + 'c'}));
  for (const char* wrong : {"<0x-1>", "<0x 1>", "<0xGG>", "<0x123>", "<0x>", "0x0A", "<0x0A", "<0X0A>"}) {
    auto pieces = all_bytes();
    pieces[10] = wrong;
    EXPECT_REFUSED(load_spm(spm_file(pieces, true)), "bad.model");
  }
  auto missing = all_bytes();
  missing.pop_back();
  EXPECT_REFUSED(load_spm(spm_file(missing, true)), "<0xFF>");
}

TEST(HostileSentencePiece, EveryTruncationAndFlippedBit) {
  const std::string whole = spm_file({}, false);
  for (size_t size = 0; size < whole.size(); ++size)
    error_of([&] { load_spm(std::string_view(whole).substr(0, size)); });
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = char(flipped[bit / 8] ^ (1 << bit % 8));
    error_of([&] { PipelineTokenizer(load_spm(flipped)).encode("ab <s> \xff", {}); });
  }
  EXPECT_REFUSED(load_spm(std::string_view(whole).substr(0, whole.size() - 1)), "bad.model");
  EXPECT_REFUSED(load_spm(""), "unknown");
  EXPECT_REFUSED(load_spm("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "bad.model");
  EXPECT_REFUSED(load_spm(std::string(11, '\xff')), "bad.model");
}

TEST(HostileSentencePiece, BrokenNormalisationRules) {
  EXPECT_REFUSED(CharsMap(std::string_view("abc"), "rules"), "3 bytes");
  EXPECT_REFUSED(CharsMap(std::string_view("\x10\0\0\0abcd", 8), "rules"), "16");
  // No trie at all (found by tokenizer_fuzz): nothing is ever replaced.
  EXPECT_FALSE(CharsMap(std::string_view("\0\0\0\0zz", 6), "rules").longest("z"));
  // A trie of one unit whose offsets lead outside, and replacements without an end.
  for (uint32_t unit : {0u, 0xffffffffu, 0x7fffffffu, 0x00000161u, 0xfffffd61u}) {
    std::string blob = std::string("\x08\0\0\0", 4);
    blob.append(reinterpret_cast<const char*>(&unit), 4).append(reinterpret_cast<const char*>(&unit), 4) +=
        "zz";
    const CharsMap map(blob, "rules");
    for (const char* text : {"a", "ab", "", "\xff\xff"}) {
      map.longest(text);
      map.shortest(text);
    }
  }
}

TEST(HostileUnigram, ScoresAndUnknowns) {
  const auto make = [](std::vector<UnigramPiece> pieces, TokenId unk) {
    Unigram(pieces, unk, false, Unigram::Reference::huggingface, "bad.json");
  };
  EXPECT_REFUSED(make({{"a", std::nan("")}}, 0), "piece 0");
  EXPECT_REFUSED(make({{"a", 0}}, 5), "5");
  EXPECT_REFUSED(make({{std::string(5000, 'x'), 0}}, 0), "5000");
  const std::vector<UnigramPiece> pieces = {{"a", -1}};
  const Unigram model(pieces, -1, false, Unigram::Reference::huggingface, "bad.json");
  std::vector<TokenId> ids;
  EXPECT_REFUSED(model.encode("b", ids), "unknown");
}

TEST(HostileTiktoken, LinesAndCounts) {
  EXPECT_REFUSED(parse_tiktoken("IQ== 0\nIg== x\n", "bad.tiktoken", {}), "line 2");
  EXPECT_REFUSED(parse_tiktoken("I!== 0\n", "bad.tiktoken", {}), "line 1");
  EXPECT_REFUSED(parse_tiktoken("IQ==\n", "bad.tiktoken", {}), "line 1");
  EXPECT_REFUSED(parse_tiktoken("IQ== 0\nIg== 1\n", "bad.tiktoken", {}), "2 ranks");
  EXPECT_REFUSED(parse_tiktoken("IQ== 99999999999999\n", "bad.tiktoken", {}), "line 1");
}

class GgufVocabulary {
 public:
  GgufVocabulary(std::string model, std::string pre) {
    text("tokenizer.ggml.model", model);
    if (!pre.empty()) text("tokenizer.ggml.pre", pre);
  }
  void text(const std::string& key, const std::string& value) {
    name(key), number<uint32_t>(8), string(value);
  }
  void strings(const std::string& key, const std::vector<std::string>& values) {
    name(key), number<uint32_t>(9), number<uint32_t>(8), number<uint64_t>(values.size());
    for (const auto& value : values) string(value);
  }
  template <typename T>
  void numbers(const std::string& key, uint32_t type, const std::vector<T>& values) {
    name(key), number<uint32_t>(9), number<uint32_t>(type), number<uint64_t>(values.size());
    for (T value : values) number(value);
  }
  void integer(const std::string& key, uint32_t value) { name(key), number<uint32_t>(4), number(value); }
  std::vector<TokenId> encode(std::string_view input) {
    std::string file = "GGUF";
    const uint32_t version = 3;
    const uint64_t tensors = 0;
    file.append(reinterpret_cast<const char*>(&version), 4)
        .append(reinterpret_cast<const char*>(&tensors), 8);
    file.append(reinterpret_cast<const char*>(&count_), 8) += body_;
    const formats::Gguf gguf = formats::parse_gguf(std::as_bytes(std::span(file)), "bad.gguf");
    return load_tokenizer(gguf, "bad.gguf")->encode(input, {.add_special = false});
  }

 private:
  template <typename T>
  void number(T value) {
    body_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void string(const std::string& value) { number<uint64_t>(value.size()), body_ += value; }
  void name(const std::string& key) { ++count_, string(key); }
  std::string body_;
  uint64_t count_ = 0;
};

TEST(HostileGguf, VocabularyArrays) {
  const std::vector<std::string> tokens = {"a", "b", "ab"};
  const auto bpe = [&](const std::string& pre) {
    GgufVocabulary file("gpt2", pre);
    file.strings("tokenizer.ggml.tokens", tokens);
    return file;
  };
  auto good = bpe("gpt-2");
  good.strings("tokenizer.ggml.merges", {"a b"});
  EXPECT_EQ(good.encode("ab"), std::vector<TokenId>{2});

  EXPECT_REFUSED(bpe("gpt-2").encode(""), "tokenizer.ggml.merges");
  EXPECT_REFUSED(bpe("no-such-splitting").encode(""), "no-such-splitting");
  EXPECT_REFUSED(bpe("").encode(""), "tokenizer.ggml.pre");
  EXPECT_REFUSED(GgufVocabulary("gpt2", "gpt-2").encode(""), "tokenizer.ggml.tokens");
  EXPECT_REFUSED(GgufVocabulary("rwkv", "").encode(""), "tokenizer.ggml.tokens");
  auto file = bpe("gpt-2");
  file.strings("tokenizer.ggml.merges", {"ab"});
  EXPECT_REFUSED(file.encode(""), "merge 0");
  file = bpe("gpt-2");
  file.strings("tokenizer.ggml.merges", {"a b", "b ab"});
  EXPECT_REFUSED(file.encode(""), "merge 1");
  file = bpe("gpt-2");
  file.numbers<int32_t>("tokenizer.ggml.token_type", 5, {1, 1});
  EXPECT_REFUSED(file.encode(""), "2 entries");
  file = bpe("gpt-2");
  file.numbers<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 77});
  EXPECT_REFUSED(file.encode(""), "77");
  file = bpe("gpt-2");
  file.numbers<float>("tokenizer.ggml.token_type", 6, {1, 1, 1});
  EXPECT_REFUSED(file.encode(""), "token_type");
  file = bpe("gpt-2");
  file.strings("tokenizer.ggml.merges", {"a b"});
  file.integer("tokenizer.ggml.eos_token_id", 3);
  EXPECT_REFUSED(file.encode(""), "eos_token_id");
  GgufVocabulary spm("llama", "");
  spm.strings("tokenizer.ggml.tokens", tokens);
  EXPECT_REFUSED(spm.encode(""), "tokenizer.ggml.scores");
  spm.numbers<float>("tokenizer.ggml.scores", 6, {0, std::nanf(""), 0});
  EXPECT_REFUSED(spm.encode(""), "piece 1");
}

}  // namespace
}  // namespace cairn::text
