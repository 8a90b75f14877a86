// The text that `cairn perplexity` and `cairn compare` score, as tokens.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace cairn::app {

// What both commands ask for.
struct ScoredText {
  std::string file;
  int64_t window = 0, tokens = 0;  // 0: see the flags' help
  bool json = false, special = false;
};
void add_scored_text(CLI::App&, ScoredText&);

// At most `most` tokens of the text (0: all); "<s>" in it is that token when `special`, else four characters.
// Throws Error(invalid_argument) naming the file when there are fewer than two.
std::vector<int32_t> tokens_of(const text::Tokenizer&, const std::string& text, int64_t most,
                               const std::string& file, bool special = false);
// What the tokenizer puts before a text (<s>), if anything.
std::optional<int32_t> first_token(const text::Tokenizer&);

}  // namespace cairn::app
