#include "text/spm_bpe.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "text/utf8.h"

namespace cairn::text {

SpmBpe::SpmBpe(const std::vector<Piece>& pieces, TokenId unk, bool byte_fallback, const std::string& file)
    : unk_(unk), byte_fallback_(byte_fallback) {
  byte_ids_.fill(-1);
  vocabulary_.reserve(pieces.size());
  pieces_.reserve(pieces.size());
  std::vector<TokenId> order;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const TokenId id = TokenId(i);
    if (std::isnan(piece.score))
      fail(ErrorKind::invalid_file, "{}: the score of piece {} is not a number", file, i);
    vocabulary_.set(id, piece.text);
    types_.push_back(piece.type);
    order.push_back(id);
    switch (piece.type) {
      case PieceType::normal: pieces_.insert(piece.text, id); break;
      case PieceType::unused:
        pieces_.insert(piece.text, id);
        any_unused_ = true;
        break;
      case PieceType::user_defined:
        pieces_.insert(piece.text, id);
        user_defined_.insert(piece.text, id);
        break;
      case PieceType::byte:
        if (const auto byte = byte_of_token(piece.text)) {
          byte_ids_[*byte] = id;
        } else {
          fail(ErrorKind::invalid_file,
               "{}: piece {} is of type byte, but its text \"{}\" is not <0x00> to <0xFF>", file, i,
               piece.text);
        }
        break;
      default: break;
    }
  }
  if (byte_fallback_ && std::count(byte_ids_.begin(), byte_ids_.end(), -1) > 0) {
    const auto missing = std::find(byte_ids_.begin(), byte_ids_.end(), -1) - byte_ids_.begin();
    fail(ErrorKind::invalid_file, "{}: byte fallback is on, but the piece {} is missing", file,
         token_of_byte(uint8_t(missing)));
  }
  std::sort(order.begin(), order.end(),
            [&](TokenId a, TokenId b) { return pieces[size_t(a)].score > pieces[size_t(b)].score; });
  ranks_.resize(pieces.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const bool equal = i > 0 && pieces[size_t(order[i])].score == pieces[size_t(order[i - 1])].score;
    ranks_[size_t(order[i])] = equal ? ranks_[size_t(order[i - 1])] : int32_t(i);
  }
}

void SpmBpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() > 0x7fffffff)
    fail(ErrorKind::invalid_argument, "a text of {} bytes is too long to tokenize", word.size());
  constexpr int32_t kFrozen = -2;  // a user-defined piece: never merged
  std::vector<Symbol> symbols;
  for (uint32_t i = 0; i < word.size();) {
    const ByteTrie::Match match = user_defined_.longest(word.substr(i));
    if (match.length > 0) {
      symbols.push_back({i, i + uint32_t(match.length), kFrozen});
      i += uint32_t(match.length);
    } else {
      const uint32_t length = decode_utf8(word.substr(i)).bytes;
      symbols.push_back({i, i + length, -1});
      i += length;
    }
  }

  // An unused piece may be an intermediate result only: what it was made of is kept, to take it apart again.
  std::unordered_map<std::string_view, uint32_t> made_of;
  const auto lookup = [&](const Symbol& left, const Symbol& right) {
    if (left.id == kFrozen || right.id == kFrozen) return PairMap::Entry{};
    const std::string_view joined = word.substr(left.begin, right.end - left.begin);
    const TokenId id = pieces_.find(joined);
    if (id < 0) return PairMap::Entry{};
    if (any_unused_ && types_[size_t(id)] == PieceType::unused) made_of[joined] = left.end - left.begin;
    return PairMap::Entry{ranks_[size_t(id)], id};
  };
  std::vector<PairMap::Entry> pairs;
  merge_symbols(symbols, pairs, lookup);

  bool after_unknown = false;
  const auto emit = [&](std::string_view text) {
    TokenId id = pieces_.find(text);
    if (id >= 0) {
      out.push_back(id);
      after_unknown = false;
    } else if (byte_fallback_) {
      for (char c : text) out.push_back(byte_ids_[uint8_t(c)]);
    } else if (unk_ >= 0) {
      if (!after_unknown) out.push_back(unk_);
      after_unknown = true;
    }
  };
  std::vector<std::string_view> stack;
  for (const Symbol& symbol : symbols) {
    stack.push_back(word.substr(symbol.begin, symbol.end - symbol.begin));
    while (!stack.empty()) {
      const std::string_view text = stack.back();
      stack.pop_back();
      const auto parts = made_of.find(text);
      const TokenId id = any_unused_ && parts != made_of.end() ? pieces_.find(text) : -1;
      if (id >= 0 && types_[size_t(id)] == PieceType::unused) {
        stack.push_back(text.substr(parts->second));
        stack.push_back(text.substr(0, parts->second));
      } else {
        emit(text);
      }
    }
  }
}

}  // namespace cairn::text
