// Hand-written equivalents of the pre-tokenization patterns that nearly every byte-level BPE uses. Each cuts
// a text into words exactly as its regular expression does (scanner_test.cpp compares them with PCRE2), many
// times faster.
#pragma once

#include <memory>
#include <string_view>

namespace cairn::text {

class Scanner {
 public:
  virtual ~Scanner() = default;
  // The end of the word that starts at p; p < end, valid UTF-8 throughout. Every word has at least one byte.
  virtual const char* word_end(const char* p, const char* end) const = 0;
};

// Null when the pattern is not one of the known ones, compared character by character.
std::unique_ptr<Scanner> scanner_for_pattern(std::string_view pattern);

// The patterns, for loaders that know them by name.
namespace patterns {
extern const char* const kGpt2;          // GPT-2, r50k_base, and HF's ByteLevel pre-tokenizer
extern const char* const kGpt2Tiktoken;  // the same language in tiktoken's present spelling
extern const char* const kCl100k;        // GPT-4's pattern as Llama 3 and most tokenizer.json files spell it
extern const char* const
    kCl100kTiktoken;  // as tiktoken spells it now: whitespace that ends the text is one word
extern const char* const kQwen2;
extern const char* const kQwen35;  // letters with their marks
extern const char* const kO200k;   // GPT-4o
extern const char* const kTekken;  // Mistral Nemo
}  // namespace patterns

}  // namespace cairn::text
