// Regular expressions of tokenizer files, through PCRE2 with UTF, Unicode properties, JIT and a bounded
// effort. Patterns are written for Oniguruma (Ruby syntax), as Hugging Face tokenizers reads them; what the
// two understand differently (\s, \w, \h, ^ and $ at lines, scripts) is translated.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn::text {

class Regex {
 public:
  // place: for errors. Throws Error(unsupported) for a pattern that PCRE2 does not accept.
  Regex(std::string_view pattern, std::string place);

  struct Span {
    size_t begin = 0, end = 0;
    bool match = false;
  };
  // The whole text, cut into matches and what lies between them, in order. text is valid UTF-8. Throws
  // Error(invalid_argument) when matching needs more than the bounded effort.
  std::vector<Span> cut(std::string_view text) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  std::string place_;
};

// Exposed for tests.
std::string translate_pattern(std::string_view oniguruma);

}  // namespace cairn::text
