// "<|im_start|>" typed by a user is eleven characters, not a token. A rendered chat template holds its own
// special tokens and the users' words in one string; this finds out which is which.
//
// Before rendering, every place in the given strings that could become (part of) a special token is rewritten
// in characters of private-use plane 15; afterwards they are turned back, and where they stood no special
// token is looked for. Everything else reaches the template unchanged, so its tests and splits on "</think>"
// and white space work. Only text that spells control tokens is opaque to the template's logic.
//
// A string is rewritten where it (1) spells a special token, (2) ends with the beginning of one, (3) begins
// with the end of one, (4) is the inside of one and more than a word. So no special token can be put together
// across the border of a string either. What remains: a template that writes '<' ~ name ~ '>' around a
// client's word, in a vocabulary where "<word>" is a control token.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api/json_text.h"
#include "text/byte_trie.h"
#include "text/tokenizer.h"

namespace cairn::serve {

struct RenderedPrompt {
  std::string text;
  std::vector<text::ByteRange> user;  // for EncodeOptions::plain: only where it matters
};

// What can be known of a tokenizer in advance. Immutable; shared by threads.
class SpecialTexts {
 public:
  explicit SpecialTexts(const text::Tokenizer&);

  // Sorted, merged byte ranges of `text` that rules (1) to (4) name.
  std::vector<text::ByteRange> dangerous(std::string_view text) const;

 private:
  friend class UserText;
  text::ByteTrie whole_;  // every special token
  text::ByteTrie ends_;   // every proper suffix of one
  std::vector<std::string> texts_;
  size_t longest_ = 0;
};

// Of one request.
class UserText {
 public:
  explicit UserText(const SpecialTexts& special) : special_(special) {}

  // Rewrites all strings and keys inside `value`.
  void hide(Json& value);
  // The template's output with the strings turned back.
  RenderedPrompt reveal(std::string_view rendered) const;

 private:
  void hide(std::string&);
  void append_hidden(std::string& out, std::string_view character);

  const SpecialTexts& special_;
  std::map<std::string, uint32_t, std::less<>> codes_;  // a character and what stands for it
  std::vector<std::string> characters_;                 // the reverse
};

}  // namespace cairn::serve
