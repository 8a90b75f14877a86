#include "text/model.h"

#include <cassert>

#include "base/error.h"
#include "text/byte_level.h"

namespace cairn::text {

void Vocabulary::reserve(size_t tokens) {
  spans_.reserve(tokens);
  by_text_.reserve(tokens);
}

void Vocabulary::set_unreachable(TokenId id, std::string_view text) {
  assert(id >= 0);
  if (id >= size()) spans_.resize(size_t(id) + 1);
  spans_[size_t(id)] = {uint32_t(arena_.size()), uint32_t(text.size())};
  arena_ += text;
}

void Vocabulary::set(TokenId id, std::string_view text) {
  set_unreachable(id, text);
  by_text_.insert(text, id);
}

std::string_view Vocabulary::text(TokenId id) const {
  if (!has(id)) return {};
  const Span span = spans_[size_t(id)];
  return std::string_view(arena_).substr(span.begin, span.length);
}

std::optional<TokenId> find_token(const Model& model, std::string_view text) {
  TokenId id = -1;
  if (!model.byte_level())
    id = model.vocabulary().find(text);
  else if (const auto bytes = from_visible(text))
    id = model.vocabulary().find(*bytes);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return uint8_t(value);
}

std::string token_of_byte(uint8_t byte) { return fmt::format("<0x{:02X}>", byte); }

void check_token_id(int64_t id, size_t tokens, const std::string& file) {
  const int64_t limit = int64_t(tokens) * 4 + (int64_t{1} << 20);
  if (id < 0 || id >= limit)
    fail(ErrorKind::invalid_file,
         "{}: token id {} is out of range for a vocabulary of {} tokens (expected 0 to {})", file, id, tokens,
         limit - 1);
}

}  // namespace cairn::text
