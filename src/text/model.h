// The part of a tokenizer that turns one word into ids. Models are immutable after loading and shared by
// threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/string_map.h"
#include "text/tokenizer.h"

namespace cairn::text {

// Token texts by id and ids by text. Ids may have gaps. When two ids share a text, the first one given is
// found.
class Vocabulary {
 public:
  void reserve(size_t tokens);
  void set(TokenId id, std::string_view text);  // precondition: id >= 0
  // A token that encoding cannot produce: it has a text, but the text does not find it.
  void set_unreachable(TokenId id, std::string_view text);
  TokenId find(std::string_view text) const { return by_text_.find(text); }  // -1 when absent
  bool has(TokenId id) const { return id >= 0 && id < size() && spans_[size_t(id)].begin != kAbsent; }
  std::string_view text(TokenId id) const;                 // "" for an id that is not there
  int32_t size() const { return int32_t(spans_.size()); }  // one past the largest id

 private:
  static constexpr uint32_t kAbsent = 0xffffffff;
  struct Span {
    uint32_t begin = kAbsent, length = 0;
  };
  std::string arena_;
  std::vector<Span> spans_;
  StringMap by_text_;
};

class Model {
 public:
  virtual ~Model() = default;
  // Appends the ids of one word: bytes for a byte-level model, else valid UTF-8 as normalised and split
  // before.
  virtual void encode(std::string_view word, std::vector<TokenId>& out) const = 0;
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Token texts are bytes, not GPT-2's visible alphabet (byte_level.h).
  bool byte_level() const { return byte_level_; }

 protected:
  Vocabulary vocabulary_;
  bool byte_level_ = false;
};

// The id of a token by its text, in the visible alphabet for a byte-level model.
std::optional<TokenId> find_token(const Model&, std::string_view text);

// The byte of a token "<0x41>", as byte fallback writes it: exactly two hexadecimal digits.
std::optional<uint8_t> byte_of_token(std::string_view token);
std::string token_of_byte(uint8_t byte);  // "<0x0A>"

// Ids in a file may not be larger than a few times the number of tokens, so that a small file cannot ask for
// gigabytes. Throws Error(invalid_file).
void check_token_id(int64_t id, size_t tokens, const std::string& file);

}  // namespace cairn::text
