#include "text/pipeline_tokenizer.h"

#include <algorithm>

#include "text/byte_level.h"
#include "text/utf8.h"

namespace cairn::text {

PipelineTokenizer::PipelineTokenizer(Pipeline pipeline) : pipeline_(std::move(pipeline)) {
  size_ = pipeline_.model->vocabulary().size();
  for (const AddedToken& token : pipeline_.added.all()) size_ = std::max(size_, token.id + 1);
}

void PipelineTokenizer::encode_text(std::string_view text, bool at_start, std::vector<TokenId>& out) const {
  const Model& model = *pipeline_.model;
  if (pipeline_.scanner) {
    const char *p = text.data(), *end = p + text.size();
    while (p < end) {
      const char* next = pipeline_.scanner->word_end(p, end);
      model.encode({p, size_t(next - p)}, out);
      p = next;
    }
  } else if (pipeline_.pre_tokenizer) {
    std::vector<Word> words;
    words.push_back({std::string(text), at_start});
    pipeline_.pre_tokenizer->apply(words);
    for (const Word& word : words) {
      if (word.text.empty()) continue;
      if (!model.byte_level()) {
        model.encode(word.text, out);
      } else if (const auto bytes = from_visible(word.text)) {
        model.encode(*bytes, out);
      }
    }
  } else if (!text.empty()) {
    model.encode(text, out);
  }
}

std::vector<TokenId> PipelineTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string replaced;
  bool parse_special = options.parse_special;
  if (!pipeline_.normalizer_takes_invalid_utf8 && !is_valid_utf8(text)) {
    replaced = replace_invalid_utf8(text);
    text = replaced;
    if (!options.plain.empty()) parse_special = false;  // the ranges' offsets mean nothing now
  }
  // Compatibility forms grow a text 11 times at most, the visible alphabet and U+2581 a few times more.
  const TextBudget budget(text.size() * 64 + (size_t{64} << 10));
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 8);
  const auto found = [&](TokenId id) { ids.push_back(id); };
  pipeline_.added.split(
      text, false, parse_special, options.plain,
      [&](std::string_view raw, size_t raw_offset) {
        std::string normal;
        if (pipeline_.normalizer) normal = pipeline_.normalizer->apply(raw);
        // Offsets do not survive normalising, so a part that holds user text has none of the tokens that are
        // looked for in normalised text. Special ones rarely are.
        const bool user_text = AddedTokens::touches(options.plain, raw_offset, raw_offset + raw.size());
        pipeline_.added.split(
            pipeline_.normalizer ? std::string_view(normal) : raw, true, parse_special && !user_text, {},
            [&](std::string_view part, size_t offset) { encode_text(part, raw_offset + offset == 0, ids); },
            found);
      },
      found);
  return options.add_special ? pipeline_.post.apply(std::move(ids)) : ids;
}

std::optional<std::string> PipelineTokenizer::token_text(TokenId id) const {
  if (const AddedToken* added = pipeline_.added.find(id)) return added->decoded;
  const Vocabulary& vocabulary = pipeline_.model->vocabulary();
  if (!vocabulary.has(id)) return std::nullopt;
  const std::string_view text = vocabulary.text(id);
  // A byte-level vocabulary keeps bytes; the few texts outside its alphabet are kept as they are.
  return pipeline_.model->byte_level() && vocabulary.find(text) >= 0 ? to_visible(text) : std::string(text);
}

std::optional<TokenId> PipelineTokenizer::token_to_id(std::string_view text) const {
  if (const AddedToken* added = pipeline_.added.find(text)) return added->id;
  return find_token(*pipeline_.model, text);
}

bool PipelineTokenizer::is_special(TokenId id) const {
  const AddedToken* added = pipeline_.added.find(id);
  return added && added->special;
}

bool PipelineTokenizer::is_special_text(std::string_view text) const {
  const AddedToken* added = pipeline_.added.find(text);
  return added && added->special;
}

std::string PipelineTokenizer::piece(TokenId id) const {
  if (const AddedToken* added = pipeline_.added.find(id)) return added->text;
  if (pipeline_.model->byte_level()) return std::string(pipeline_.model->vocabulary().text(id));
  auto text = token_text(id);
  return text ? pipeline_.decoder.piece(std::move(*text)) : std::string();
}

namespace {

class PipelineStream final : public DecodeStream {
 public:
  PipelineStream(const PipelineTokenizer& tokenizer, const DecoderChain& chain, bool skip_special)
      : tokenizer_(tokenizer), run_(chain), skip_special_(skip_special) {}
  std::string add(TokenId id) override {
    auto text = tokenizer_.token_text(id);
    // By text, not by id: the reference skips every token that reads like a special one.
    if (skip_special_ && text && tokenizer_.is_special_text(*text)) return run_.skip();
    return text ? run_.add(id, std::move(*text)) : std::string();
  }
  std::string finish() override { return run_.finish(); }

 private:
  const PipelineTokenizer& tokenizer_;
  DecoderChain::Run run_;
  bool skip_special_;
};

}  // namespace

std::unique_ptr<DecodeStream> PipelineTokenizer::decode_stream(bool skip_special) const {
  return std::make_unique<PipelineStream>(*this, pipeline_.decoder, skip_special);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  const auto stream = decode_stream(skip_special);
  std::string text;
  for (TokenId id : ids) text += stream->add(id);
  return text + stream->finish();
}

}  // namespace cairn::text
