// Behind include/cairn/cairn.h: what the command line's own commands share with it.
#pragma once

#include <filesystem>
#include <future>
#include <memory>
#include <optional>

#include "cairn/cairn.h"
#include "engine/generate.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace cairn {

// What commands ask of the engine beyond LoadOptions: engine::EngineOptions has the meanings.
struct EngineShape {
  int64_t step_logits = 8;
  int64_t step_tokens = 0;
  int64_t sequences = 1;
  int64_t cache_tokens = 0;
  int page_tokens = 32;
  bool fuse_low_rank = true;
  bool encoders = false;                 // models that give embeddings and no text are welcome
  std::filesystem::path tokenizer = {};  // a folder or GGUF file that has one; empty: the model's own
};

struct Model::Impl {
  Impl(const std::filesystem::path&, const LoadOptions&, const EngineShape& = {});

  std::filesystem::path path;
  engine::Engine engine;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;  // absent when the model came without one
  engine::Session session;

  std::string render(std::span<const Message>) const;  // with the generation prompt

 private:
  using LaterTokenizer = std::future<std::unique_ptr<text::Tokenizer>>;
  Impl(const std::filesystem::path&, const LoadOptions&, const EngineShape&, LaterTokenizer);
};

// The file or folder whose tokenizer belongs to a model: the folder itself, the GGUF, or what lies beside a
// checkpoint file.
std::filesystem::path tokenizer_path(const std::filesystem::path& model);

// Throw Error(invalid_argument) listing the names. An empty form is the device's own.
std::optional<kv::KvForm> parse_kv_form(std::string_view);
engine::Place parse_place(std::string_view);
// What a caller asks of the two memories and of the split between them.
void place_layers(const LoadOptions&, engine::EngineOptions&);
engine::GenerateOptions generate_options(const Parameters&);
// Temperature and top_p of the model's generation_config.json when it says do_sample; else greedy.
Parameters recommended_parameters(const Model::Impl&);

}  // namespace cairn
