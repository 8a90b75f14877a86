#include <algorithm>

#include "base/error.h"
#include "formats/json_file.h"
#include "text/bpe.h"
#include "text/loaders.h"
#include "text/unigram.h"
#include "text/utf8.h"
#include "text/word_piece.h"

namespace cairn::text {
namespace {

using Tokens = std::vector<std::pair<TokenId, std::string_view>>;

Tokens vocabulary_object(const JsonView& vocab) {
  if (!vocab.is_object()) vocab.wrong("an object of token texts and ids");
  Tokens tokens;
  tokens.reserve(vocab.value().size());
  for (const auto& [text, id] : vocab.value().items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      fail(ErrorKind::invalid_file, "{}: the id of token \"{}\" is {}, expected a number from 0",
           vocab.place(), text, id.dump());
    tokens.emplace_back(TokenId(id.get<int64_t>()), text);
  }
  return tokens;
}

TokenId token_named(const Tokens& tokens, const std::string& text) {
  for (const auto& [id, token] : tokens)
    if (token == text) return id;
  return -1;
}

std::unique_ptr<Model> parse_bpe(const JsonView& model, bool byte_level, const std::string& file) {
  if (const auto dropout = model.find("dropout"); dropout && dropout->number() != 0)
    fail(ErrorKind::unsupported, "{} is {}: encoding with dropout is not supported", dropout->place(),
         dropout->number());
  const Tokens tokens = vocabulary_object(model.at("vocab"));
  const JsonView list = model.at("merges");
  std::vector<Merge> merges;
  merges.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView::Json& merge = list.value()[i];
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.push_back({merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()});
      continue;
    }
    const std::string_view text = list[i].string();
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos)
      fail(ErrorKind::invalid_file, "{} is \"{}\", expected two tokens with one space between them",
           list[i].place(), text);
    merges.push_back({text.substr(0, space), text.substr(space + 1)});
  }
  BpeOptions options;
  options.byte_level = byte_level;
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.fuse_unk = model.boolean_or("fuse_unk", false);
  options.prefix = model.string_or("continuing_subword_prefix", "");
  options.suffix = model.string_or("end_of_word_suffix", "");
  if (const auto unk = model.find("unk_token")) options.unk = token_named(tokens, unk->string());
  return std::make_unique<Bpe>(tokens, merges, options, file);
}

std::unique_ptr<Model> parse_unigram(const JsonView& model, const std::string& file) {
  const JsonView list = model.at("vocab");
  std::vector<UnigramPiece> pieces;
  pieces.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) pieces.push_back({list[i][0].string(), list[i][1].number()});
  const int64_t unk = model.integer_or("unk_id", -1);
  if (unk < -1 || unk >= int64_t(pieces.size()))
    fail(ErrorKind::invalid_file, "{}/unk_id is {}, but there are {} pieces", model.place(), unk,
         pieces.size());
  return std::make_unique<Unigram>(pieces, TokenId(unk), model.boolean_or("byte_fallback", false),
                                   Unigram::Reference::huggingface, file);
}

std::unique_ptr<Model> parse_model(const JsonView& model, bool byte_level, const std::string& file) {
  // Old files leave the type out; then the fields tell.
  std::string type = model.string_or("type", "");
  if (type.empty()) type = model.find("merges") ? "BPE" : model.find("unk_id") ? "Unigram" : "WordPiece";
  if (type == "BPE") return parse_bpe(model, byte_level, file);
  if (type == "Unigram") return parse_unigram(model, file);
  if (type != "WordPiece" && type != "WordLevel") model.unsupported("model", type);
  const Tokens tokens = vocabulary_object(model.at("vocab"));
  const TokenId unk =
      token_named(tokens, model.string_or("unk_token", type == "WordPiece" ? "[UNK]" : "<unk>"));
  if (type == "WordLevel") return std::make_unique<WordLevel>(tokens, unk, file);
  const int64_t longest = model.integer_or("max_input_chars_per_word", 100);
  if (longest < 0) model.at("max_input_chars_per_word").wrong("a number of characters");
  return std::make_unique<WordPiece>(tokens, unk, model.string_or("continuing_subword_prefix", "##"),
                                     size_t(longest), file);
}

std::vector<AddedToken> parse_added_tokens(const JsonView& list, const Pipeline& pipeline,
                                           const std::string& file) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView entry = list[i];
    AddedToken token;
    token.text = entry.at("content").string();
    const int64_t id = entry.at("id").integer();
    check_token_id(id, size_t(pipeline.model->vocabulary().size()) + list.size(), file);
    // The model's own id counts when it has the token, as in the reference.
    token.id = find_token(pipeline, token.text).value_or(TokenId(id));
    token.special = entry.boolean_or("special", false);
    token.single_word = entry.boolean_or("single_word", false);
    token.lstrip = entry.boolean_or("lstrip", false);
    token.rstrip = entry.boolean_or("rstrip", false);
    token.normalized = entry.boolean_or("normalized", !token.special);
    if (token.text.empty()) continue;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void parse_decoder(const JsonView& json, DecoderChain& chain) {
  const std::string& type = json.at("type").string();
  const auto character = [&](const char* field, const char* otherwise) {
    const std::string text = json.string_or(field, otherwise);
    const CodePoint c = text.empty() ? CodePoint{kInvalid, 0} : decode_utf8(text);
    if (c.value == kInvalid || c.bytes != text.size())
      fail(ErrorKind::invalid_file, "{}/{} is \"{}\", expected one character", json.place(), field, text);
    return c.value;
  };
  if (type == "Sequence") {
    const JsonView list = json.at("decoders");
    list.check_steps();
    for (size_t i = 0; i < list.size(); ++i) parse_decoder(list[i], chain);
  } else if (type == "ByteLevel") {
    chain.add(byte_level_decoder());
  } else if (type == "ByteFallback") {
    chain.add(byte_fallback_decoder());
  } else if (type == "Fuse") {
    chain.add(fuse_decoder());
  } else if (type == "Strip") {
    const int64_t start = json.at("start").integer(), stop = json.at("stop").integer();
    if (start < 0 || stop < 0) json.wrong("a Strip decoder with counts from 0");
    chain.add(strip_decoder(character("content", " "), size_t(start), size_t(stop)));
  } else if (type == "Replace") {
    const auto text = json.at("pattern").find("String");
    if (!text) json.unsupported("decoder", "Replace with a regular expression");
    chain.add(replace_decoder(text->string(), json.at("content").string()));
  } else if (type == "Metaspace") {
    const std::string scheme =
        json.string_or("prepend_scheme", json.boolean_or("add_prefix_space", true) ? "always" : "never");
    chain.add(metaspace_decoder(character("replacement", "\xe2\x96\x81"), scheme != "never"));
  } else if (type == "WordPiece") {
    chain.add(word_piece_decoder(json.string_or("prefix", "##"), json.boolean_or("cleanup", true)));
  } else if (type == "BPEDecoder") {
    chain.add(bpe_decoder(json.string_or("suffix", "</w>")));
  } else if (type == "CTC") {
    chain.add(ctc_decoder(json.string_or("pad_token", "<pad>"), json.string_or("word_delimiter_token", "|"),
                          json.boolean_or("cleanup", true)));
  } else {
    json.unsupported("decoder", type);
  }
}

}  // namespace

Pipeline parse_tokenizer_json(std::string_view text, const std::string& file) {
  const nlohmann::json document = formats::parse_json(text, file);
  const JsonView root(document, file + ": ");
  Pipeline pipeline;
  if (const auto normalizer = root.find("normalizer")) pipeline.normalizer = parse_normalizer(*normalizer);
  bool byte_level = false;
  if (const auto pre = root.find("pre_tokenizer")) {
    byte_level = maps_bytes(*pre);
    pipeline.scanner = parse_byte_level_scanner(*pre);
    if (!pipeline.scanner) pipeline.pre_tokenizer = parse_pre_tokenizer(*pre);
  }
  pipeline.model = parse_model(root.at("model"), byte_level, file);
  if (const auto added = root.find("added_tokens")) {
    const Normalizer* normalizer = pipeline.normalizer.get();
    pipeline.added.set(
        parse_added_tokens(*added, pipeline, file),
        [&](std::string_view content) {
          return normalizer ? normalizer->apply(content) : std::string(content);
        },
        file);
  }
  if (const auto post = root.find("post_processor")) pipeline.post = parse_post_processor(*post);
  for (const auto* ids : {&pipeline.post.before, &pipeline.post.after})
    for (TokenId id : *ids)
      if (!pipeline.model->vocabulary().has(id) && !pipeline.added.find(id))
        fail(ErrorKind::invalid_file, "{}: the post-processor adds token {}, which does not exist", file, id);
  if (const auto decoder = root.find("decoder")) parse_decoder(*decoder, pipeline.decoder);
  return pipeline;
}

}  // namespace cairn::text
