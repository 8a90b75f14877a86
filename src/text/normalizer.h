// What happens to text before it is split into words.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/json_view.h"

namespace cairn::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string_view text) const = 0;  // valid UTF-8 in and out
};

// The "normalizer" of a tokenizer.json.
std::unique_ptr<Normalizer> parse_normalizer(const JsonView&);

std::unique_ptr<Normalizer> replace_normalizer(std::string from, std::string to);
std::unique_ptr<Normalizer> prepend_normalizer(std::string prefix);  // not before an empty text
std::unique_ptr<Normalizer> sequence_normalizer(std::vector<std::unique_ptr<Normalizer>>);

}  // namespace cairn::text
