// Tags of an answer as patterns: literal text in which '~' stands for any run of whitespace, none included.
#pragma once

#include <cstddef>
#include <string_view>

namespace cairn::text::answer {

// Text that is still arriving, read from `at`. last: nothing more will come, so what could still become a tag
// is text.
struct Cursor {
  std::string_view text;
  size_t& at;
  bool last;
};

enum class Match {
  no,
  more,  // so far it fits; only more text can tell
  yes,
};

// Longer runs of whitespace than this do not match '~' or stand before a tag, which bounds what has to be
// held back and read again.
constexpr size_t kMostSpace = 256;

bool is_space(char c);
std::string_view trim(std::string_view);

// length: what matched, when yes. A pattern that ends in '~' needs to see what follows the whitespace.
Match match_tag(std::string_view pattern, std::string_view text, bool last, size_t& length);

// The same behind optional whitespace; on yes the cursor stands behind the tag.
Match take_tag(std::string_view pattern, Cursor&);

// Moves past whitespace; true when something follows.
bool skip_space(Cursor&);

// The first place at or after `from` where the pattern matches (yes) or may yet match (more).
struct Found {
  Match match;
  size_t at;
  size_t length;
};
Found find_tag(std::string_view pattern, std::string_view text, size_t from, bool last);

}  // namespace cairn::text::answer
