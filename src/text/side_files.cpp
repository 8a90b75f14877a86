#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/json_file.h"
#include "text/loaders.h"

namespace cairn::text {
namespace {

namespace fs = std::filesystem;

std::optional<nlohmann::json> read_json(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  return formats::parse_json(read_text_file(path, size_t{64} << 20), path.string());
}

// "bos_token": "<s>" or {"content": "<s>", ...}.
void read_token(const JsonView& config, const char* field, const Pipeline& pipeline,
                std::optional<TokenId>& id) {
  const auto token = config.find(field);
  if (!token) return;
  const std::string& text = token->is_object() ? token->at("content").string() : token->string();
  if (const auto found = find_token(pipeline, text)) id = found;
}

void read_tokens(const JsonView& config, Pipeline& pipeline) {
  read_token(config, "bos_token", pipeline, pipeline.special.bos);
  read_token(config, "eos_token", pipeline, pipeline.special.eos);
  read_token(config, "unk_token", pipeline, pipeline.special.unk);
  read_token(config, "pad_token", pipeline, pipeline.special.pad);
}

// A string, or a list of {name, template} of which "default" counts.
std::optional<std::string> read_template(const JsonView& config) {
  const auto chat = config.find("chat_template");
  if (!chat) return std::nullopt;
  if (chat->is_string()) return chat->string();
  std::optional<std::string> chosen;
  for (size_t i = 0; i < chat->size(); ++i) {
    const JsonView entry = (*chat)[i];
    if (!chosen || entry.at("name").string() == "default") chosen = entry.at("template").string();
  }
  return chosen;
}

// "eos_token_id": 2 or [2, 32000].
void read_ends(const JsonView& config, Pipeline& pipeline) {
  const auto add = [&](const JsonView& value) {
    const int64_t id = value.integer();
    if (id < 0 || id > INT32_MAX) return;
    pipeline.special.end_of_turn.push_back(TokenId(id));
    if (!pipeline.special.eos) pipeline.special.eos = TokenId(id);
  };
  const auto eos = config.find("eos_token_id");
  if (!eos) return;
  if (!eos->is_array()) return add(*eos);
  for (size_t i = 0; i < eos->size(); ++i) add((*eos)[i]);
}

}  // namespace

std::optional<TokenId> find_token(const Pipeline& pipeline, std::string_view text) {
  if (const AddedToken* added = pipeline.added.find(text)) return added->id;
  return find_token(*pipeline.model, text);
}

void complete_special_tokens(Pipeline& pipeline) {
  static constexpr std::string_view kEnds[] = {
      "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>",         "<end_of_turn>",
      "<turn|>",    "<|end|>",    "<|return|>",      "<|call|>",   "<|END_OF_TURN_TOKEN|>", "<|end_of_turn|>",
      "<EOT>",      "<|EOT|>",    "<|eot|>"};
  std::vector<TokenId>& ends = pipeline.special.end_of_turn;
  if (pipeline.special.eos) ends.push_back(*pipeline.special.eos);
  for (std::string_view text : kEnds)
    if (const AddedToken* token = pipeline.added.find(text)) ends.push_back(token->id);
  // Where answers have channels, <|end|> ends one message of several and <|return|> the answer.
  if (const AddedToken* end = pipeline.added.find("<|end|>");
      end != nullptr && pipeline.added.find("<|return|>") != nullptr)
    std::erase(ends, end->id);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

void apply_side_files(Pipeline& pipeline, const fs::path& folder) {
  if (const auto json = read_json(folder / "special_tokens_map.json"))
    read_tokens({*json, (folder / "special_tokens_map.json").string() + ": "}, pipeline);
  if (const auto json = read_json(folder / "tokenizer_config.json")) {
    const JsonView config(*json, (folder / "tokenizer_config.json").string() + ": ");
    read_tokens(config, pipeline);
    pipeline.chat_template = read_template(config);
  }
  if (const auto json = read_json(folder / "chat_template.json"))
    pipeline.chat_template = read_template({*json, (folder / "chat_template.json").string() + ": "});
  if (fs::exists(folder / "chat_template.jinja"))
    pipeline.chat_template = read_text_file(folder / "chat_template.jinja", size_t{16} << 20);
  for (const char* name : {"generation_config.json", "config.json"}) {
    const auto json = read_json(folder / name);
    if (!json) continue;
    read_ends({*json, (folder / name).string() + ": "}, pipeline);
    break;  // config.json only when there is no generation_config.json
  }
}

}  // namespace cairn::text
