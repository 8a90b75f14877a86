#include <charconv>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/json_file.h"
#include "text/base64.h"
#include "text/bpe.h"
#include "text/loaders.h"

namespace cairn::text {
namespace {

using Specials = std::vector<std::pair<TokenId, std::string>>;

Specials numbered(TokenId first, const std::vector<std::string>& texts) {
  Specials specials;
  for (const std::string& text : texts) specials.emplace_back(first++, text);
  return specials;
}

Specials cl100k_specials() {
  return {{100257, "<|endoftext|>"},
          {100258, "<|fim_prefix|>"},
          {100259, "<|fim_middle|>"},
          {100260, "<|fim_suffix|>"},
          {100276, "<|endofprompt|>"}};
}

// Llama 3 (not 3.1, which names a few of the reserved ones; a tokenizer_config.json beside the file says so).
Specials llama3_specials() {
  std::vector<std::string> texts = {"<|begin_of_text|>", "<|end_of_text|>"};
  int reserved = 0;
  const auto reserve = [&](int count) {
    for (; count > 0; --count) texts.push_back(fmt::format("<|reserved_special_token_{}|>", reserved++));
  };
  reserve(4);
  texts.insert(texts.end(), {"<|start_header_id|>", "<|end_header_id|>"});
  reserve(1);
  texts.push_back("<|eot_id|>");
  reserve(246);
  return numbered(128000, texts);
}

// The multilingual Whisper vocabulary up to large-v2: 99 languages, tasks, and time stamps every 20 ms up to
// 30 s.
Specials whisper_specials() {
  static constexpr std::string_view kLanguages =
      "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg "
      "lt la mi ml "
      "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be "
      "tg sd gu am "
      "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su";
  std::vector<std::string> texts = {"<|endoftext|>", "<|startoftranscript|>"};
  for (size_t at = 0; at < kLanguages.size();) {
    const size_t end = std::min(kLanguages.find(' ', at), kLanguages.size());
    texts.push_back(fmt::format("<|{}|>", kLanguages.substr(at, end - at)));
    at = end + 1;
  }
  for (const char* task : {"<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>",
                           "<|nospeech|>", "<|notimestamps|>"})
    texts.push_back(task);
  for (int i = 0; i <= 1500; ++i) texts.push_back(fmt::format("<|{:.2f}|>", i * 0.02));
  return numbered(50257, texts);
}

Specials qwen_specials() {
  std::vector<std::string> texts = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (int i = 0; i < 205; ++i) texts.push_back(fmt::format("<|extra_{}|>", i));
  return numbered(151643, texts);
}

struct Known {
  size_t ranks;
  const char* pattern;
  Specials (*specials)();
  std::optional<TokenId> bos;
};

const std::vector<Known>& known_files() {
  static const std::vector<Known> known = {
      {50256,
       patterns::kGpt2Tiktoken,
       [] {
         return Specials{{50256, "<|endoftext|>"}};
       },
       {}},                                                    // r50k, gpt2
      {50257, patterns::kGpt2Tiktoken, whisper_specials, {}},  // Whisper multilingual
      {50280,
       patterns::kGpt2Tiktoken,
       [] {
         return Specials{{50256, "<|endoftext|>"}};
       },
       {}},  // p50k
      {100256, patterns::kCl100kTiktoken, cl100k_specials, {}},
      {128000, patterns::kCl100k, llama3_specials, 128000},
      {151643, patterns::kQwen2, qwen_specials, {}},
      {199998,
       patterns::kO200k,
       [] {
         return Specials{{199999, "<|endoftext|>"}, {200018, "<|endofprompt|>"}};
       },
       {}}};
  return known;
}

// {"added_tokens_decoder": {"128000": {"content": "<|begin_of_text|>", ...}, ...}}
Specials config_specials(const std::filesystem::path& folder, size_t ranks) {
  const auto path = folder / "tokenizer_config.json";
  if (folder.empty() || !std::filesystem::exists(path)) return {};
  const nlohmann::json document = formats::read_json_file(path);
  const auto tokens = JsonView(document, path.string() + ": ").find("added_tokens_decoder");
  Specials specials;
  if (!tokens) return specials;
  for (const auto& [key, entry] : tokens->value().items()) {
    TokenId id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size())
      fail(ErrorKind::invalid_file, "{} has \"{}\" where a token id is expected", tokens->place(), key);
    check_token_id(id, ranks, path.string());
    specials.emplace_back(id, JsonView(entry, tokens->place() + "/" + key).at("content").string());
  }
  return specials;
}

}  // namespace

Pipeline parse_tiktoken(std::string_view text, const std::string& file, const std::filesystem::path& folder) {
  std::vector<std::pair<TokenId, std::string>> tokens;
  size_t line_number = 0, ranks = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    ++ranks;
    const size_t space = line.find(' ');
    TokenId rank = -1;
    std::optional<std::string> bytes;
    if (space != line.npos) {
      bytes = decode_base64(line.substr(0, space));
      const char* last = line.data() + line.size();
      const auto [stop, error] = std::from_chars(line.data() + space + 1, last, rank);
      if (error != std::errc() || stop != last) rank = -1;
    }
    if (!bytes || rank < 0)
      fail(ErrorKind::invalid_file, "{}: line {} is not a token in base64, a space and its rank", file,
           line_number);
    // Whisper's file has one token without bytes, which nothing encodes to.
    if (!bytes->empty()) tokens.emplace_back(rank, std::move(*bytes));
  }
  const Known* known = nullptr;
  for (const Known& candidate : known_files())
    if (candidate.ranks == ranks) known = &candidate;
  if (!known)
    fail(ErrorKind::unsupported,
         "{}: {} ranks match none of the known files (r50k 50256, Whisper 50257, p50k 50280, cl100k 100256, "
         "Llama 3 "
         "128000, Qwen 151643, o200k 199998), so the pattern that splits text is not known",
         file, ranks);

  Pipeline pipeline;
  pipeline.scanner = scanner_for_pattern(known->pattern);
  pipeline.model = std::make_unique<RankBpe>(tokens, file);
  Specials specials = config_specials(folder, ranks);
  if (specials.empty()) specials = known->specials();
  std::vector<AddedToken> added;
  for (auto& [id, content] : specials)
    added.push_back({.id = id, .text = std::move(content), .special = true});
  pipeline.added.set(std::move(added), nullptr, file);
  pipeline.decoder.add(byte_level_decoder());
  pipeline.special.bos = known->bos;
  if (known->bos) pipeline.post.before = {*known->bos};
  for (const char* end : {"<|endoftext|>", "<|end_of_text|>"})
    if (const AddedToken* token = pipeline.added.find(std::string_view(end)))
      pipeline.special.eos = token->id;
  return pipeline;
}

}  // namespace cairn::text
