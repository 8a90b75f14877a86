// Text to token ids and back, exactly as the reference tokenizer of each model does it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::formats {
struct Gguf;
}

namespace cairn::text {

using TokenId = int32_t;

struct ByteRange {
  size_t begin = 0, end = 0;
};

struct EncodeOptions {
  bool add_special = true;    // what the model's post-processor adds: <s>, [CLS] ... [SEP]
  bool parse_special = true;  // "<|eot_id|>" in the text is that token; false: it is plain text (user input)
  // Bytes of the text, in order, that no special token may touch: user input inside a rendered template. The
  // text must be valid UTF-8 then, else nothing in it is special.
  std::span<const ByteRange> plain = {};
};

struct SpecialTokens {
  std::optional<TokenId> bos, eos, unk, pad;
  std::vector<TokenId>
      end_of_turn;  // every id that ends an answer (eos, <|eot_id|>, <end_of_turn>, <|im_end|>, ...)
};

// A decoding in progress: what the ids so far have made certain.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  virtual std::string add(TokenId) = 0;  // the text that became certain; never part of a character
  virtual std::string finish() = 0;      // the rest
};

// Immutable and safe to use from many threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Text that is not valid UTF-8 is read with U+FFFD in place of what is broken.
  virtual std::vector<TokenId> encode(std::string_view text, const EncodeOptions& = {}) const = 0;
  // The text of ids in sequence, as the reference's decode(skip_special_tokens) gives it. Ids outside the
  // vocabulary give no text.
  std::string decode(std::span<const TokenId> ids, bool skip_special = true) const;
  // The same, id by id: the parts joined are decode() of all ids.
  virtual std::unique_ptr<DecodeStream> decode_stream(bool skip_special = true) const = 0;
  // The raw bytes that one token adds in the middle of a text (may be part of a UTF-8 character); special
  // tokens give their text. For constrained output and log probabilities.
  virtual std::string piece(TokenId) const = 0;
  virtual int32_t vocabulary_size() const = 0;  // one past the largest id
  virtual std::optional<TokenId> token_to_id(std::string_view) const = 0;
  virtual bool is_special(TokenId) const = 0;
  virtual const SpecialTokens& special() const = 0;
  // The Jinja chat template that came with the tokenizer (tokenizer_config.json, chat_template.jinja or
  // GGUF).
  virtual std::optional<std::string> chat_template() const = 0;
};

// A model folder, or one of tokenizer.json, tokenizer.model (SentencePiece), *.tiktoken / tiktoken.model,
// tokenizer.bin (llama2.c), *.gguf. Throws Error naming the file and what is not supported; never guesses.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path&);
std::unique_ptr<Tokenizer> load_tokenizer(const formats::Gguf&, const std::string& name);

// Turns a growing id sequence into text that never ends inside a UTF-8 character; the parts joined are the
// tokenizer's decode() of the whole. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : stream_(tokenizer.decode_stream(skip_special)) {}
  std::string add(TokenId id) { return stream_->add(id); }  // the text that became complete
  std::string finish() { return stream_->finish(); }        // what is left, replaced where incomplete

 private:
  std::unique_ptr<DecodeStream> stream_;
};

}  // namespace cairn::text
