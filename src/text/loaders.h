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

// tiktoken's rank file: base64 of the token and its rank, per line. Known by its number of ranks: r50k, p50k,
// cl100k, o200k, Whisper, Llama 3, Qwen; others throw Error(unsupported). The Llama 3 and Qwen specials come
// from tokenizer_config.json in `folder` when it is there.
Pipeline parse_tiktoken(std::string_view text, const std::string& file, const std::filesystem::path& folder);
// vocab.json with merges.txt (GPT-2, OPT), and vocab.txt (BERT), where a folder has no tokenizer.json.
Pipeline load_vocab_and_merges(const std::filesystem::path& folder);
Pipeline load_word_list(const std::filesystem::path& folder);
// The vocabulary inside a GGUF file.
Pipeline gguf_pipeline(const formats::Gguf&, const std::string& file);

// Facts that lie beside a vocabulary: special tokens and chat template from tokenizer_config.json,
// special_tokens_map.json, chat_template.jinja(.json), generation_config.json and config.json, where present.
void apply_side_files(Pipeline&, const std::filesystem::path& folder);

// A token's id by its text, as Tokenizer::token_to_id.
std::optional<TokenId> find_token(const Pipeline&, std::string_view text);
// Adds to special.end_of_turn what is known to end an answer: eos and the usual texts, when they are special
// tokens.
void complete_special_tokens(Pipeline&);

}  // namespace cairn::text
