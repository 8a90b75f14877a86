// The text that `cairn perplexity` and `cairn compare` score, as tokens.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::app {

// At most `most` tokens of the text (0: all), without special ones. Throws Error(invalid_argument) naming the
// file when there are fewer than two.
std::vector<int32_t> tokens_of(const text::Tokenizer&, const std::string& text, int64_t most,
                               const std::string& file);
// What the tokenizer puts before a text (<s>), if anything.
std::optional<int32_t> first_token(const text::Tokenizer&);

}  // namespace cairn::app
