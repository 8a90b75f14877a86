#include "text/decoder.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "text/utf8.h"

namespace cairn::text {
namespace {

using Texts = std::vector<std::string>;

struct Named {
  const char* name;
  std::function<void(DecoderChain&)> fill;
};

std::string decode(const DecoderChain& chain, const Texts& tokens) {
  DecoderChain::Run run(chain);
  std::string text;
  for (const std::string& token : tokens) {
    const std::string part = run.add(0, token);
    EXPECT_TRUE(is_valid_utf8(part));
    text += part;
  }
  return text + run.finish();
}

std::string decode(std::function<void(DecoderChain&)> fill, const Texts& tokens) {
  DecoderChain chain;
  fill(chain);
  return decode(chain, tokens);
}

TEST(Decoder, OneStepEach) {
  EXPECT_EQ(decode([](auto&) {}, {"a", "b"}), "a b");
  EXPECT_EQ(decode([](auto& c) { c.add(byte_level_decoder()); }, {"\xc4\xa0"
                                                                  "a",
                                                                  "\xc3\x83", "\xc2\xa9", "<| |>"}),
            " a\xc3\xa9<| |>");
  EXPECT_EQ(decode([](auto& c) { c.add(byte_level_decoder()); }, {"\xc3\x83", "a"}),
            "\xef\xbf\xbd"
            "a");
  EXPECT_EQ(
      decode([](auto& c) { c.add(byte_fallback_decoder()); }, {"a", "<0xE2>", "<0x82>", "<0xAC>", "<0xZZ>"}),
      "a\xe2\x82\xac<0xZZ>");
  EXPECT_EQ(decode([](auto& c) { c.add(byte_fallback_decoder()); }, {"<0xE2>", "<0x82>", "a"}),
            "\xef\xbf\xbd\xef\xbf\xbd"
            "a");
  EXPECT_EQ(decode([](auto& c) { c.add(metaspace_decoder(0x2581, true)); }, {"\xe2\x96\x81"
                                                                             "a",
                                                                             "\xe2\x96\x81"
                                                                             "b"}),
            "a b");
  EXPECT_EQ(decode([](auto& c) { c.add(metaspace_decoder(0x2581, false)); }, {"\xe2\x96\x81"
                                                                              "a"}),
            " a");
  EXPECT_EQ(decode([](auto& c) { c.add(word_piece_decoder("##", true)); },
                   {"##un", "##aff", "able", "!", "do", "n't"}),
            "##unaff able! don't");
  EXPECT_EQ(decode([](auto& c) { c.add(bpe_decoder("</w>")); }, {"ab", "c</w>", "d</w>"}), "abc d");
  EXPECT_EQ(decode([](auto& c) { c.add(ctc_decoder("<pad>", "|", true)); },
                   {"<pad>", "h", "h", "<pad>", "h", "|", "|", "o"}),
            "hh o");
  EXPECT_EQ(decode([](auto& c) { c.add(strip_decoder('_', 2, 1)); }, {"___a__", "b"}), "_a_b");
}

TEST(Decoder, LlamaChainStripsOnlyTheFirstSpace) {
  const auto llama = [](DecoderChain& c) {
    c.add(replace_decoder("\xe2\x96\x81", " "));
    c.add(byte_fallback_decoder());
    c.add(fuse_decoder());
    c.add(strip_decoder(' ', 1, 0));
  };
  EXPECT_EQ(decode(llama, {"\xe2\x96\x81\xe2\x96\x81"
                           "a",
                           "\xe2\x96\x81"
                           "b",
                           "<0x41>"}),
            " a bA");
  EXPECT_EQ(decode(llama, {}), "");
  DecoderChain chain;
  llama(chain);
  EXPECT_EQ(chain.piece("\xe2\x96\x81"
                        "b"),
            " b");
  EXPECT_EQ(chain.piece("<0xE2>"), "\xe2");
}

TEST(Decoder, AJoinedTokenIsHeldBackForStepsThatNeedItWhole) {
  // The replacement spans two tokens after they were joined.
  EXPECT_EQ(
      decode([](auto& c) { c.add(fuse_decoder()), c.add(replace_decoder("ab", "X")); }, {"a", "b", "c"}),
      "Xc");
  EXPECT_EQ(decode([](auto& c) { c.add(fuse_decoder()), c.add(strip_decoder(' ', 0, 1)); }, {"a ", "b "}),
            "a b");
  EXPECT_EQ(
      decode([](auto& c) { c.add(fuse_decoder()), c.add(strip_decoder(' ', 2, 0)); }, {" ", "", " ", " a"}),
      " a");
}

}  // namespace
}  // namespace cairn::text
