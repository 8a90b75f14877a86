// What happens to text before it is split into words.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/chars_map.h"
#include "text/json_view.h"

namespace cairn::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string_view text) const = 0;  // valid UTF-8 in and out
};

// The "normalizer" of a tokenizer.json.
std::unique_ptr<Normalizer> parse_normalizer(const JsonView&);

// The steps of a tokenizer file may not grow a text without end. While a budget lives, texts made on this
// thread may have that many bytes; else 1 MiB (texts of single tokens). Past it check_text_size throws
// Error(invalid_argument).
class TextBudget {
 public:
  explicit TextBudget(size_t bytes);
  ~TextBudget();
  TextBudget(const TextBudget&) = delete;
  TextBudget& operator=(const TextBudget&) = delete;

 private:
  size_t before_;
};
void check_text_size(size_t bytes);

std::string replace_all(std::string_view text, std::string_view from, std::string_view to);
std::unique_ptr<Normalizer> replace_normalizer(std::string from, std::string to);
std::unique_ptr<Normalizer> prepend_normalizer(std::string prefix);  // not before an empty text
std::unique_ptr<Normalizer> sequence_normalizer(std::vector<std::unique_ptr<Normalizer>>);

struct BertRules {
  bool clean_text = true;            // drops control characters, makes white space a space
  bool handle_chinese_chars = true;  // spaces around ideographs
  bool strip_accents = true;
  bool lowercase = true;
};
std::unique_ptr<Normalizer> bert_normalizer(BertRules);

// SentencePiece's normalizer (normalizer.cc), which also takes invalid UTF-8, U+FFFD for each broken byte:
// rules, white space, and U+2581 for spaces.
struct SpmRules {
  CharsMap rules;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  std::vector<std::string> user_defined;  // pieces that no rule touches
};
std::unique_ptr<Normalizer> spm_normalizer(SpmRules);

}  // namespace cairn::text
