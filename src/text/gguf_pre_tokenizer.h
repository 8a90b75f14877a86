// How a GGUF file's vocabulary splits text, by the name in tokenizer.ggml.pre.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cairn::text {

struct GgufPreTokenizer {
  nlohmann::json pre_tokenizer;  // as tokenizer.json would write it
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
};

// Throws Error(unsupported) naming a name that is not known.
GgufPreTokenizer gguf_pre_tokenizer(std::string_view name, const std::string& file);

}  // namespace cairn::text
