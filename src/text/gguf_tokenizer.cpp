#include <algorithm>

#include "base/error.h"
#include "formats/gguf.h"
#include "text/bpe.h"
#include "text/gguf_pre_tokenizer.h"
#include "text/loaders.h"
#include "text/sentencepiece.h"
#include "text/utf8.h"
#include "text/word_piece.h"

namespace cairn::text {
namespace {

using formats::Gguf;
using formats::GgufArray;

// The arrays of a vocabulary, checked against one another.
struct Vocab {
  const std::vector<std::string_view>* tokens = nullptr;
  const GgufArray* scores = nullptr;  // null when absent
  const GgufArray* types = nullptr;
  size_t size() const { return tokens->size(); }
  PieceType type(size_t i) const { return types ? PieceType(types->integer(i)) : PieceType::normal; }
};

const GgufArray& strings(const Gguf& gguf, const char* key, const std::string& file) {
  const GgufArray* array = gguf.strings(key);
  if (!array) fail(ErrorKind::invalid_file, "{}: has no vocabulary ({} is missing)", file, key);
  return *array;
}

Vocab read_vocab(const Gguf& gguf, const std::string& file) {
  Vocab vocab;
  vocab.tokens = &strings(gguf, "tokenizer.ggml.tokens", file).strings;
  vocab.scores = gguf.numbers("tokenizer.ggml.scores");
  vocab.types = gguf.integers("tokenizer.ggml.token_type");
  for (const auto& [array, key] : {std::pair{vocab.scores, "tokenizer.ggml.scores"},
                                   std::pair{vocab.types, "tokenizer.ggml.token_type"}})
    if (array && array->count != vocab.size())
      fail(ErrorKind::invalid_file, "{}: {} has {} entries, but there are {} tokens", file, key, array->count,
           vocab.size());
  for (size_t i = 0; vocab.types && i < vocab.size(); ++i) {
    const int64_t type = vocab.types->integer(i);
    if (type < 1 || type > 6)
      fail(ErrorKind::invalid_file, "{}: token {} has type {}, expected 1 to 6", file, i, type);
  }
  return vocab;
}

std::optional<TokenId> token_key(const Gguf& gguf, const char* key, size_t tokens, const std::string& file) {
  const auto id = gguf.integer(key);
  if (!id || *id == -1 || *id == int64_t{0xffffffff})
    return std::nullopt;  // both spellings of "none" are in use
  if (*id < 0 || uint64_t(*id) >= tokens)
    fail(ErrorKind::invalid_file, "{}: {} is {}, but there are {} tokens", file, key, *id, tokens);
  return TokenId(*id);
}

// Phi-3's chat markers swallow the white space after them; the format has no field for that.
bool strips_right(const Gguf& gguf, std::string_view text) {
  if (gguf.string("general.architecture").value_or("") != "phi3") return false;
  return text != "<unk>" && text != "<s>" && text != "<|endoftext|>";
}

std::vector<AddedToken> added_tokens(const Gguf& gguf, const Vocab& vocab, bool with_user_defined) {
  std::vector<AddedToken> added;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const PieceType type = vocab.type(i);
    const bool special = type == PieceType::control || type == PieceType::unknown;
    if (!special && !(with_user_defined && type == PieceType::user_defined)) continue;
    AddedToken token{.id = TokenId(i), .text = replace_invalid_utf8((*vocab.tokens)[i]), .special = special};
    if (token.text.empty()) continue;
    token.rstrip = strips_right(gguf, token.text);
    added.push_back(std::move(token));
  }
  return added;
}

// Llama 1 and 2, Mistral, Gemma 1 to 3 (BPE by score), and T5 (unigram).
Pipeline spm_pipeline(const Gguf& gguf, const Vocab& vocab, bool unigram, const std::string& file) {
  if (!vocab.scores) fail(ErrorKind::invalid_file, "{}: tokenizer.ggml.scores is missing", file);
  SentencePieceModel model;
  model.kind = unigram ? SentencePieceModel::Kind::unigram : SentencePieceModel::Kind::bpe;
  const auto unk = token_key(gguf, "tokenizer.ggml.unknown_token_id", vocab.size(), file);
  size_t bytes = 0;
  for (size_t i = 0; i < vocab.size(); ++i) {
    PieceType type = vocab.type(i);
    if (unk && size_t(*unk) == i) type = PieceType::unknown;
    if (type == PieceType::byte) ++bytes;
    model.pieces.push_back({std::string((*vocab.tokens)[i]), float(vocab.scores->number(i)), type});
  }
  model.byte_fallback = bytes >= 256;
  model.rules.add_dummy_prefix = gguf.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  model.rules.remove_extra_whitespaces =
      gguf.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
  if (const GgufArray* map = gguf.array("tokenizer.ggml.precompiled_charsmap")) {
    if (map->type > 1)
      fail(ErrorKind::invalid_file,
           "{}: tokenizer.ggml.precompiled_charsmap is an array of type {}, expected bytes", file, map->type);
    model.rules.rules = CharsMap({reinterpret_cast<const char*>(map->bytes.data()), map->bytes.size()}, file);
  }
  Pipeline pipeline = sentencepiece_pipeline(std::move(model), file);
  pipeline.added = {};
  pipeline.added.set(added_tokens(gguf, vocab, true), nullptr, file);
  return pipeline;
}

std::vector<Merge> read_merges(const Gguf& gguf, const std::string& file) {
  const GgufArray& list = strings(gguf, "tokenizer.ggml.merges", file);
  std::vector<Merge> merges;
  merges.reserve(list.strings.size());
  for (std::string_view text : list.strings) {
    const size_t space = text.find(' ', 1);  // a token may begin with a space
    if (space == text.npos)
      fail(ErrorKind::invalid_file, "{}: merge {} is \"{}\", expected two tokens with a space between them",
           file, merges.size(), text);
    merges.push_back({text.substr(0, space), text.substr(space + 1)});
  }
  return merges;
}

std::vector<std::pair<TokenId, std::string_view>> numbered_tokens(const Vocab& vocab) {
  std::vector<std::pair<TokenId, std::string_view>> tokens;
  tokens.reserve(vocab.size());
  for (size_t i = 0; i < vocab.size(); ++i) tokens.emplace_back(TokenId(i), (*vocab.tokens)[i]);
  return tokens;
}

Pipeline byte_level_pipeline(const Gguf& gguf, const Vocab& vocab, const std::string& file) {
  const auto pre = gguf.string("tokenizer.ggml.pre");
  if (!pre)
    fail(ErrorKind::unsupported,
         "{}: tokenizer.ggml.pre is missing, so the way to split text is not known; convert the model again",
         file);
  const GgufPreTokenizer splitting = gguf_pre_tokenizer(*pre, file);
  Pipeline pipeline;
  const JsonView view(splitting.pre_tokenizer, file + ": " + std::string(*pre));
  pipeline.scanner = parse_byte_level_scanner(view);
  if (!pipeline.scanner) pipeline.pre_tokenizer = parse_pre_tokenizer(view);
  pipeline.model =
      std::make_unique<Bpe>(numbered_tokens(vocab), read_merges(gguf, file),
                            BpeOptions{.byte_level = true, .ignore_merges = splitting.ignore_merges}, file);
  pipeline.added.set(added_tokens(gguf, vocab, true), nullptr, file);
  pipeline.decoder.add(byte_level_decoder());
  return pipeline;
}

// Gemma 4: merges over characters, spaces as U+2581, no splitting into words.
Pipeline character_bpe_pipeline(const Gguf& gguf, const Vocab& vocab, const std::string& file) {
  Pipeline pipeline;
  const std::string mark = "\xe2\x96\x81";
  BpeOptions options{.byte_fallback = true, .fuse_unk = true};
  options.unk = token_key(gguf, "tokenizer.ggml.unknown_token_id", vocab.size(), file).value_or(-1);
  pipeline.model = std::make_unique<Bpe>(numbered_tokens(vocab), read_merges(gguf, file), options, file);
  pipeline.normalizer = replace_normalizer(" ", mark);
  pipeline.added.set(added_tokens(gguf, vocab, true), nullptr, file);
  pipeline.decoder.add(replace_decoder(mark, " "));
  pipeline.decoder.add(byte_fallback_decoder());
  pipeline.decoder.add(fuse_decoder());
  return pipeline;
}

// BERT. The conversion writes word starts with U+2581 and takes "##" from continuations; undo both.
Pipeline word_piece_pipeline(const Gguf& gguf, const Vocab& vocab, const std::string& file) {
  constexpr std::string_view kMark = "\xe2\x96\x81";
  std::vector<std::string> texts;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const std::string_view token = (*vocab.tokens)[i];
    const bool bracketed = token.starts_with('[') && token.ends_with(']');
    if (token.starts_with(kMark))
      texts.push_back(replace_invalid_utf8(token.substr(kMark.size())));
    else
      texts.push_back(bracketed ? replace_invalid_utf8(token) : "##" + replace_invalid_utf8(token));
  }
  std::vector<std::pair<TokenId, std::string_view>> tokens;
  for (size_t i = 0; i < texts.size(); ++i) tokens.emplace_back(TokenId(i), texts[i]);
  const TokenId unk = token_key(gguf, "tokenizer.ggml.unknown_token_id", vocab.size(), file).value_or(100);
  if (size_t(unk) >= vocab.size())
    fail(ErrorKind::invalid_file, "{}: has {} tokens and no tokenizer.ggml.unknown_token_id", file,
         vocab.size());

  Pipeline pipeline;
  BertRules rules;
  rules.lowercase = gguf.boolean("tokenizer.ggml.normalizer.lowercase").value_or(true);
  rules.strip_accents = gguf.boolean("tokenizer.ggml.normalizer.strip_accents").value_or(rules.lowercase);
  pipeline.normalizer = bert_normalizer(rules);
  const nlohmann::json pre = {{"type", "BertPreTokenizer"}};
  pipeline.pre_tokenizer = parse_pre_tokenizer({pre, file});
  pipeline.model = std::make_unique<WordPiece>(tokens, unk, "##", 100, file);
  pipeline.added.set(added_tokens(gguf, vocab, false), nullptr, file);
  pipeline.decoder.add(word_piece_decoder("##", true));
  const auto cls = token_key(gguf, "tokenizer.ggml.cls_token_id", vocab.size(), file);
  const auto sep = token_key(gguf, "tokenizer.ggml.seperator_token_id", vocab.size(), file);
  if (cls) pipeline.post.before = {*cls};
  if (sep) pipeline.post.after = {*sep};
  return pipeline;
}

}  // namespace

Pipeline gguf_pipeline(const Gguf& gguf, const std::string& file) {
  const auto model = gguf.string("tokenizer.ggml.model");
  if (!model) fail(ErrorKind::invalid_file, "{}: has no tokenizer (tokenizer.ggml.model is missing)", file);
  const Vocab vocab = read_vocab(gguf, file);
  Pipeline pipeline;
  bool add_bos = false, add_eos = false;
  if (*model == "llama") {
    pipeline = spm_pipeline(gguf, vocab, false, file);
    add_bos = true;
  } else if (*model == "t5") {
    pipeline = spm_pipeline(gguf, vocab, true, file);
    add_eos = true;
  } else if (*model == "gpt2") {
    pipeline = byte_level_pipeline(gguf, vocab, file);
    add_bos = gguf_pre_tokenizer(gguf.string("tokenizer.ggml.pre").value_or(""), file).add_bos;
  } else if (*model == "gemma4") {
    pipeline = character_bpe_pipeline(gguf, vocab, file);
    add_bos = true;
  } else if (*model == "bert") {
    pipeline = word_piece_pipeline(gguf, vocab, file);
  } else {
    fail(ErrorKind::unsupported,
         "{}: tokenizer.ggml.model \"{}\" is not supported (llama, gpt2, bert, t5, gemma4 are); a "
         "tokenizer.json beside the "
         "model can be used instead",
         file, *model);
  }

  const auto key = [&](const char* name) { return token_key(gguf, name, vocab.size(), file); };
  SpecialTokens& special = pipeline.special;
  special.bos = key("tokenizer.ggml.bos_token_id");
  special.eos = key("tokenizer.ggml.eos_token_id");
  if (const auto unk = key("tokenizer.ggml.unknown_token_id")) special.unk = unk;
  special.pad = key("tokenizer.ggml.padding_token_id");
  for (const char* end : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = key(end)) special.end_of_turn.push_back(*id);
  if (*model != "bert") {
    if (gguf.boolean("tokenizer.ggml.add_bos_token").value_or(add_bos) && special.bos)
      pipeline.post.before = {*special.bos};
    if (gguf.boolean("tokenizer.ggml.add_eos_token").value_or(add_eos) && special.eos)
      pipeline.post.after = {*special.eos};
  }
  if (const auto chat = gguf.string("tokenizer.chat_template"))
    pipeline.chat_template = replace_invalid_utf8(*chat);
  return pipeline;
}

}  // namespace cairn::text
