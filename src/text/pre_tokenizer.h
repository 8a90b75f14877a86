// Cutting normalised text into the words that the model encodes one by one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/json_view.h"
#include "text/scanner.h"

namespace cairn::text {

struct Word {
  std::string text;       // valid UTF-8; bytes in the visible alphabet once a ByteLevel step has run
  bool at_start = false;  // begins where the whole text begins
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(std::vector<Word>& words) const = 0;
};

// The "pre_tokenizer" of a tokenizer.json.
std::unique_ptr<PreTokenizer> parse_pre_tokenizer(const JsonView&);
// When the pre-tokenizer is one known pattern and the byte alphabet: its scanner; else null.
std::unique_ptr<Scanner> parse_byte_level_scanner(const JsonView&);
// Whether one of its steps maps bytes to the visible alphabet.
bool maps_bytes(const JsonView&);

}  // namespace cairn::text
