// One loader per file format; each fills the same Pipeline. `file` names the source in errors.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "text/pipeline_tokenizer.h"

namespace cairn::text {

// Hugging Face tokenizers' tokenizer.json.
Pipeline parse_tokenizer_json(std::string_view json, const std::string& file);
// llama2.c's tokenizer.bin: i32 longest token, then (f32 score, i32 bytes, text) per token.
Pipeline parse_llama2c_tokenizer(std::string_view bytes, const std::string& file);

// Facts that lie beside a vocabulary: special tokens and chat template from tokenizer_config.json,
// special_tokens_map.json, chat_template.jinja(.json), generation_config.json and config.json, where present.
void apply_side_files(Pipeline&, const std::filesystem::path& folder);

// A token's id by its text, as Tokenizer::token_to_id.
std::optional<TokenId> find_token(const Pipeline&, std::string_view text);
// Adds to special.end_of_turn what is known to end an answer: eos and the usual texts, when they are special
// tokens.
void complete_special_tokens(Pipeline&);

}  // namespace cairn::text
