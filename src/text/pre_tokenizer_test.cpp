#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/normalizer.h"

namespace cairn::text {
namespace {

using nlohmann::json;
using Texts = std::vector<std::string>;

Texts split(const json& step, std::string text) {
  std::vector<Word> words = {{std::move(text), true}};
  parse_pre_tokenizer({step, "test"})->apply(words);
  Texts texts;
  for (const Word& word : words) texts.push_back(word.text);
  return texts;
}

json split_step(const char* literal, const char* behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"String", literal}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(PreTokenizer, EveryBehaviour) {
  const char* text = "The-final--countdown";
  EXPECT_EQ(split(split_step("-", "Removed"), text), (Texts{"The", "final", "countdown"}));
  EXPECT_EQ(split(split_step("-", "Isolated"), text), (Texts{"The", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(split_step("-", "MergedWithPrevious"), text), (Texts{"The-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(split_step("-", "MergedWithNext"), text), (Texts{"The", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(split_step("-", "Contiguous"), text), (Texts{"The", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split(split_step("-", "Removed", true), text), (Texts{"-", "-", "-"}));
}

TEST(PreTokenizer, Metaspace) {
  const auto metaspace = [](const char* scheme, bool cut) {
    return json{{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", scheme}, {"split", cut}};
  };
  EXPECT_EQ(split(metaspace("always", true), "Hey  you"), (Texts{"_Hey", "_", "_you"}));
  EXPECT_EQ(split(metaspace("never", true), "Hey you"), (Texts{"Hey", "_you"}));
  EXPECT_EQ(split(metaspace("always", false), " Hey you"), (Texts{"_Hey_you"}));
  std::vector<Word> words = {{"a", true}, {"b", false}};
  const json first = metaspace("first", false);
  parse_pre_tokenizer({first, "test"})->apply(words);
  EXPECT_EQ(words[0].text, "_a");
  EXPECT_EQ(words[1].text, "b");
}

TEST(PreTokenizer, WordsDigitsAndPunctuation) {
  EXPECT_EQ(split({{"type", "Whitespace"}}, "Hey man, good-\n bye!"),
            (Texts{"Hey", "man", ",", "good", "-", "bye", "!"}));
  EXPECT_EQ(split({{"type", "WhitespaceSplit"}}, " Hey  man, "), (Texts{"Hey", "man,"}));
  EXPECT_EQ(split({{"type", "Digits"}, {"individual_digits", true}}, "a123b"),
            (Texts{"a", "1", "2", "3", "b"}));
  EXPECT_EQ(split({{"type", "Digits"}, {"individual_digits", false}}, "a123b\xc2\xbd"),
            (Texts{"a", "123", "b", "\xc2\xbd"}));
  EXPECT_EQ(split({{"type", "Punctuation"}}, "Hey!?~\xe2\x80\xa6"),
            (Texts{"Hey", "!", "?", "~", "\xe2\x80\xa6"}));
  EXPECT_EQ(split({{"type", "BertPreTokenizer"}},
                  "a-b\xc2\xa0"
                  "c$"),
            (Texts{"a", "-", "b", "c", "$"}));
  EXPECT_EQ(split({{"type", "CharDelimiterSplit"}, {"delimiter", "x"}}, "axbxxc"), (Texts{"a", "b", "c"}));
  EXPECT_EQ(split({{"type", "FixedLength"}, {"length", 2}},
                  "a\xc3\xa9"
                  "cde"),
            (Texts{"a\xc3\xa9", "cd", "e"}));
  EXPECT_EQ(split({{"type", "ByteLevel"}, {"add_prefix_space", true}}, "a\xc3\xa9 b"),
            (Texts{"\xc4\xa0"
                   "a\xc3\x83\xc2\xa9",
                   "\xc4\xa0"
                   "b"}));
}

TEST(PreTokenizer, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(split({{"type", "UnicodeScripts"}}, "a"), Error);
  EXPECT_THROW(split(split_step("-", "Sideways"), "a"), Error);
  EXPECT_THROW(split({{"type", "FixedLength"}, {"length", 0}}, "a"), Error);
  EXPECT_THROW(split({{"type", "Metaspace"}, {"replacement", "ab"}}, "a"), Error);
  EXPECT_THROW(split({{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}}, "a"),
               Error);
}

std::string normal(const json& step, std::string_view text) {
  return parse_normalizer({step, "test"})->apply(text);
}

TEST(Normalizer, UnicodeForms) {
  const char* text = "e\xcc\x81\xef\xac\x81\xe2\x84\xab";  // e + acute, the fi ligature, the angstrom sign
  EXPECT_EQ(normal({{"type", "NFC"}}, text), "\xc3\xa9\xef\xac\x81\xc3\x85");
  EXPECT_EQ(normal({{"type", "NFD"}}, text),
            "e\xcc\x81\xef\xac\x81"
            "A\xcc\x8a");
  EXPECT_EQ(normal({{"type", "NFKC"}}, text),
            "\xc3\xa9"
            "fi\xc3\x85");
  EXPECT_EQ(normal({{"type", "NFKD"}}, text),
            "e\xcc\x81"
            "fiA\xcc\x8a");
  EXPECT_EQ(normal({{"type", "StripAccents"}}, "e\xcc\x81x"), "ex");
  EXPECT_EQ(normal({{"type", "Lowercase"}}, "\xc4\xb0\xce\xa3x"), "i\xcc\x87\xcf\x83x");
}

TEST(Normalizer, TextEdits) {
  EXPECT_EQ(normal({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " \t a "), "a ");
  EXPECT_EQ(normal({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " \t a "), " \t a");
  EXPECT_EQ(normal({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \t "), "");
  EXPECT_EQ(normal({{"type", "Prepend"}, {"prepend", "_"}}, ""), "");
  EXPECT_EQ(normal({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}}, "a   b c"),
            "a b c");
  EXPECT_EQ(normal({{"type", "Replace"}, {"pattern", {{"String", "."}}}, {"content", "!"}}, "a.b."), "a!b!");
  EXPECT_EQ(normal({{"type", "BertNormalizer"}}, "H\xc3\xa9\tllo\x01\xe4\xbd\xa0"), "he llo \xe4\xbd\xa0 ");
  EXPECT_EQ(normal({{"type", "Sequence"},
                    {"normalizers", {{{"type", "Lowercase"}}, {{"type", "Prepend"}, {"prepend", "X"}}}}},
                   "A"),
            "Xa");
  EXPECT_THROW(normal({{"type", "Unknown"}}, "a"), Error);
}

TEST(Normalizer, SentencePieceWhiteSpace) {
  const std::string mark = "\xe2\x96\x81";
  SpmRules rules;
  EXPECT_EQ(spm_normalizer(rules)->apply("  a  b "), mark + "a" + mark + "b");
  rules.remove_extra_whitespaces = false;
  EXPECT_EQ(spm_normalizer(rules)->apply(" a  b"), mark + mark + "a" + mark + mark + "b");
  rules.add_dummy_prefix = false;
  EXPECT_EQ(spm_normalizer(rules)->apply("a\xff\xc3"), "a\xef\xbf\xbd\xef\xbf\xbd");
  rules.add_dummy_prefix = rules.whitespace_as_suffix = true;
  EXPECT_EQ(spm_normalizer(rules)->apply("a"), "a" + mark);
  EXPECT_EQ(spm_normalizer(rules)->apply(""), "");
}

}  // namespace
}  // namespace cairn::text
