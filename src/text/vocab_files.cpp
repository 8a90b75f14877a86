// The older file pairs of Hugging Face models: vocab.json with merges.txt (GPT-2, OPT), and vocab.txt (BERT).
#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/json_file.h"
#include "text/bpe.h"
#include "text/loaders.h"
#include "text/utf8.h"
#include "text/word_piece.h"

namespace cairn::text {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLargestFile = size_t{64} << 20;

// f(line, number from 1) for every line, without its end.
template <typename F>
void each_line(std::string_view text, F&& f) {
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    f(line, ++number);
    at = end + 1;
  }
}

// The special tokens that the files beside the vocabulary name, as far as the vocabulary has them; new ids
// for others come only from added_tokens.json.
std::vector<AddedToken> named_specials(const fs::path& folder, const Model& model) {
  std::vector<AddedToken> added;
  if (fs::exists(folder / "added_tokens.json")) {
    const std::string name = (folder / "added_tokens.json").string();
    const nlohmann::json document = formats::read_json_file(folder / "added_tokens.json");
    if (!document.is_object())
      fail(ErrorKind::invalid_file, "{}: not an object of token texts and ids", name);
    for (const auto& [text, id] : document.items()) {
      const int64_t value = JsonView(id, name + ": /" + text).integer();
      check_token_id(value, size_t(model.vocabulary().size()) + document.size(), name);
      added.push_back({.id = TokenId(value), .text = text, .special = true});
    }
  }
  for (const char* file : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (!fs::exists(folder / file)) continue;
    const nlohmann::json document = formats::read_json_file(folder / file);
    const JsonView config(document, (folder / file).string() + ": ");
    for (const char* field :
         {"bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"}) {
      const auto token = config.find(field);
      if (!token) continue;
      const std::string& text = token->is_object() ? token->at("content").string() : token->string();
      const auto id = find_token(model, text);
      if (!id || text.empty()) continue;
      const bool lstrip = token->is_object() && token->boolean_or("lstrip", false);
      added.push_back({.id = *id, .text = text, .special = true, .lstrip = lstrip});
    }
  }
  return added;
}

}  // namespace

Pipeline load_vocab_and_merges(const fs::path& folder) {
  const std::string vocab_name = (folder / "vocab.json").string(),
                    merges_name = (folder / "merges.txt").string();
  const nlohmann::json vocab = formats::read_json_file(folder / "vocab.json");
  if (!vocab.is_object())
    fail(ErrorKind::invalid_file, "{}: not an object of token texts and ids", vocab_name);
  std::vector<std::pair<TokenId, std::string_view>> tokens;
  for (const auto& [text, id] : vocab.items()) {
    const int64_t value = JsonView(id, vocab_name + ": /" + text).integer();
    check_token_id(value, vocab.size(), vocab_name);
    tokens.emplace_back(TokenId(value), text);
  }
  const std::string merges_text = read_text_file(folder / "merges.txt", kLargestFile);
  std::vector<Merge> merges;
  each_line(merges_text, [&](std::string_view line, size_t number) {
    if (line.empty() || line.starts_with("#version")) return;
    const size_t space = line.find(' ');
    if (space == line.npos || line.find(' ', space + 1) != line.npos)
      fail(ErrorKind::invalid_file, "{}: line {} is not two tokens with one space between them", merges_name,
           number);
    merges.push_back({line.substr(0, space), line.substr(space + 1)});
  });

  bool add_bos = false, add_prefix_space = false;
  if (fs::exists(folder / "tokenizer_config.json")) {
    const nlohmann::json document = formats::read_json_file(folder / "tokenizer_config.json");
    const JsonView config(document, (folder / "tokenizer_config.json").string() + ": ");
    add_bos = config.boolean_or("add_bos_token", false);
    add_prefix_space = config.boolean_or("add_prefix_space", false);
  }
  Pipeline pipeline;
  const nlohmann::json pre = {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}};
  pipeline.scanner = parse_byte_level_scanner({pre, vocab_name});
  if (!pipeline.scanner) pipeline.pre_tokenizer = parse_pre_tokenizer({pre, vocab_name});
  pipeline.model = std::make_unique<Bpe>(tokens, merges, BpeOptions{.byte_level = true}, merges_name);
  pipeline.added.set(named_specials(folder, *pipeline.model), nullptr, vocab_name);
  pipeline.decoder.add(byte_level_decoder());
  apply_side_files(pipeline, folder);
  if (add_bos && pipeline.special.bos) pipeline.post.before = {*pipeline.special.bos};
  return pipeline;
}

Pipeline load_word_list(const fs::path& folder) {
  const std::string name = (folder / "vocab.txt").string();
  const std::string text = replace_invalid_utf8(read_text_file(folder / "vocab.txt", kLargestFile));
  std::vector<std::pair<TokenId, std::string_view>> tokens;
  TokenId unk = -1;
  each_line(text, [&](std::string_view line, size_t number) {
    if (line == "[UNK]") unk = TokenId(number - 1);
    tokens.emplace_back(TokenId(number - 1), line);
  });
  BertRules rules;
  if (fs::exists(folder / "tokenizer_config.json")) {
    const nlohmann::json document = formats::read_json_file(folder / "tokenizer_config.json");
    const JsonView config(document, (folder / "tokenizer_config.json").string() + ": ");
    rules.lowercase = config.boolean_or("do_lower_case", true);
    rules.strip_accents = config.boolean_or("strip_accents", rules.lowercase);
    rules.handle_chinese_chars = config.boolean_or("tokenize_chinese_chars", true);
  }
  Pipeline pipeline;
  pipeline.normalizer = bert_normalizer(rules);
  const nlohmann::json pre = {{"type", "BertPreTokenizer"}};
  pipeline.pre_tokenizer = parse_pre_tokenizer({pre, name});
  pipeline.model = std::make_unique<WordPiece>(tokens, unk, "##", 100, name);
  std::vector<AddedToken> added = named_specials(folder, *pipeline.model);
  for (const char* special : {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"})
    if (const auto id = find_token(*pipeline.model, special))
      added.push_back({.id = *id, .text = special, .special = true});
  pipeline.added.set(std::move(added), nullptr, name);
  pipeline.decoder.add(word_piece_decoder("##", true));
  if (const auto cls = find_token(pipeline, "[CLS]")) pipeline.post.before = {*cls};
  if (const auto sep = find_token(pipeline, "[SEP]")) pipeline.post.after = {*sep};
  apply_side_files(pipeline, folder);
  return pipeline;
}

}  // namespace cairn::text
