#include "scored_text.h"

#include "base/error.h"

namespace cairn::app {

std::vector<int32_t> tokens_of(const text::Tokenizer& tokenizer, const std::string& text, int64_t most,
                               const std::string& file) {
  auto tokens = tokenizer.encode(text, {.add_special = false, .parse_special = false});
  if (most > 0 && int64_t(tokens.size()) > most) tokens.resize(size_t(most));
  if (tokens.size() < 2)
    fail(ErrorKind::invalid_argument, "{} has {} tokens; at least 2 are needed", file, tokens.size());
  return tokens;
}

std::optional<int32_t> first_token(const text::Tokenizer& tokenizer) {
  const auto special = tokenizer.encode("");
  if (special.empty() || tokenizer.special().bos != special.front()) return std::nullopt;
  return special.front();
}

}  // namespace cairn::app
