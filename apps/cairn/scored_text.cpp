#include "scored_text.h"

#include <CLI/CLI.hpp>

#include "base/error.h"

namespace cairn::app {

void add_scored_text(CLI::App& app, ScoredText& options) {
  app.add_option("file", options.file, "the text")->required();
  app.add_option("--window", options.window,
                 "tokens per window; each is scored by itself (default: the context, up to 1024)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--tokens", options.tokens, "stop after this many tokens of the text")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--special", options.special, "what is written like a special token is one");
  app.add_flag("--json", options.json, "machine-readable output");
}

std::vector<int32_t> tokens_of(const text::Tokenizer& tokenizer, const std::string& text, int64_t most,
                               const std::string& file, bool special) {
  auto tokens = tokenizer.encode(text, {.add_special = false, .parse_special = special});
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
