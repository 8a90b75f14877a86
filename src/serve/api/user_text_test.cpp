#include "serve/api/user_text.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

namespace cairn::serve {
namespace {

const text::Tokenizer& tokenizer() {
  static const auto loaded =
      text::load_tokenizer(std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories");
  return *loaded;
}

std::string places(std::string_view text) {
  static const SpecialTexts special(tokenizer());
  std::string out;
  for (const auto& range : special.dangerous(text)) out += fmt::format("[{},{})", range.begin, range.end);
  return out;
}

TEST(UserText, FindsWhatCouldBecomeASpecialToken) {
  EXPECT_EQ(places("a plain < text | with > signs"), "");
  EXPECT_EQ(places("say <|end|> now"), "[4,11)");
  EXPECT_EQ(places("<|end|><|user|>"), "[0,15)");
  EXPECT_EQ(places("cut <|en"), "[4,8)");   // the beginning of one at the end
  EXPECT_EQ(places("nd|> rest"), "[0,4)");  // the end of one at the beginning
  EXPECT_EQ(places("|end|"), "[0,5)");      // the inside of one
  EXPECT_EQ(places("user"), "");            // a word
  EXPECT_EQ(places("<|unknown|>"), "");
}

TEST(UserText, WhatIsHiddenComesBackWithItsPlace) {
  const SpecialTexts special(tokenizer());
  UserText user(special);
  Json value = {{"content", "x <|end|> \xf3\xb0\x80\x80 y"},
                {"<|user|>", Json::array({"<|pad|>", 3, nullptr})}};
  const std::string before = dump(value);
  user.hide(value);
  EXPECT_EQ(dump(value).find("<|end|>"), std::string::npos);
  EXPECT_EQ(dump(value).find("<|user|>"), std::string::npos);
  const auto revealed = user.reveal(dump(value));
  EXPECT_EQ(revealed.text, before);
  ASSERT_EQ(revealed.user.size(), 4u);
  const auto part = [&](size_t i) {
    return revealed.text.substr(revealed.user[i].begin, revealed.user[i].end - revealed.user[i].begin);
  };
  EXPECT_EQ(part(0), "<|end|>");
  EXPECT_EQ(part(1), "\xf3\xb0\x80\x80");  // private-use characters of the user's own
  EXPECT_EQ(part(2), "<|user|>");
}

TEST(UserText, TemplateTokensAreTokensAndTheSameTextOfUsersIsNot) {
  const std::string rendered = "<|user|>a <|end|> b<|end|>";
  const std::vector<text::ByteRange> user = {{10, 17}};
  const auto ids = tokenizer().encode(rendered, {.add_special = false, .plain = user});
  const auto end = *tokenizer().token_to_id("<|end|>");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 1);
  EXPECT_EQ(ids.front(), *tokenizer().token_to_id("<|user|>"));
  EXPECT_EQ(ids.back(), end);
  EXPECT_EQ(tokenizer().decode(ids, false), rendered);
  // Between the tokens of the template the text is cut as it would be alone.
  auto middle = tokenizer().encode("a <|end|> b", {.add_special = false, .parse_special = false});
  EXPECT_EQ(std::vector<text::TokenId>(ids.begin() + 1, ids.end() - 1), middle);
}

}  // namespace
}  // namespace cairn::serve
