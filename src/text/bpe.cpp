#include "text/bpe.h"

#include <cassert>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

struct Scratch {
  std::vector<Symbol> symbols;
  std::vector<PairMap::Entry> pairs;
  std::string text;
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

void check_word(std::string_view word) {
  if (word.size() > 0x7fffffff)
    fail(ErrorKind::invalid_argument, "a text of {} bytes is too long to tokenize (at most {})", word.size(),
         0x7fffffff);
}

}  // namespace

Bpe::Bpe(std::vector<std::pair<TokenId, std::string_view>> tokens, const std::vector<Merge>& merges,
         BpeOptions options, const std::string& file)
    : options_(std::move(options)) {
  byte_level_ = options_.byte_level;
  if (byte_level_)
    for (std::string* affix : {&options_.prefix, &options_.suffix})
      if (const auto bytes = from_visible(*affix)) *affix = *bytes;
  vocabulary_.reserve(tokens.size());
  std::string buffer;
  for (const auto& [id, text] : tokens) {
    check_token_id(id, tokens.size(), file);
    buffer.clear();
    if (!byte_level_)
      vocabulary_.set(id, text);
    else if (append_from_visible(buffer, text))
      vocabulary_.set(id, buffer);
    else
      vocabulary_.set_unreachable(id, text);
  }

  // Left and right lie side by side in the buffer, so that without a prefix the joined token is the whole of
  // it.
  merges_.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    buffer.clear();
    const auto append = [&](std::string_view text) {
      if (!byte_level_ || !append_from_visible(buffer, text)) buffer += text;
    };
    append(merges[i].left);
    const size_t cut = buffer.size();
    append(merges[i].right);
    const std::string_view left(buffer.data(), cut), right(buffer.data() + cut, buffer.size() - cut);
    std::string_view result_text = buffer;
    if (!options_.prefix.empty() && right.starts_with(options_.prefix)) {
      (joined = left) += right.substr(options_.prefix.size());
      result_text = joined;
    }
    const TokenId left_id = vocabulary_.find(left), right_id = vocabulary_.find(right),
                  result = vocabulary_.find(result_text);
    if (left_id < 0 || right_id < 0 || result < 0)
      fail(ErrorKind::invalid_file,
           "{}: merge {} joins \"{}\" and \"{}\", but \"{}\" is not in the vocabulary", file, i,
           merges[i].left, merges[i].right,
           left_id < 0    ? std::string(merges[i].left)
           : right_id < 0 ? std::string(merges[i].right)
           : byte_level_  ? to_visible(result_text)
                          : std::string(result_text));
    merges_.insert(left_id, right_id, {int32_t(i), result});
  }
  for (int b = 0; b < 256; ++b) {
    const char byte = char(b);
    byte_ids_[size_t(b)] = byte_level_              ? vocabulary_.find({&byte, 1})
                           : options_.byte_fallback ? vocabulary_.find(token_of_byte(uint8_t(b)))
                                                    : -1;
  }
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(size_t(vocabulary_.size()));
}

void Bpe::start_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  TokenId pending_unk = -1;
  uint32_t unk_begin = 0, unk_end = 0;
  const auto flush = [&] {
    if (pending_unk >= 0) symbols.push_back({unk_begin, unk_end, pending_unk});
    pending_unk = -1;
  };
  std::string& text = scratch().text;
  const bool plain = options_.prefix.empty() && options_.suffix.empty();
  for (uint32_t i = 0; i < word.size();) {
    uint32_t length = 1;
    TokenId id = -1;
    if (byte_level_ && plain) {
      id = byte_ids_[uint8_t(word[i])];
    } else {
      if (!byte_level_) length = decode_utf8(word.substr(i)).bytes;
      std::string_view key = word.substr(i, length);
      const bool last = i + length == word.size();
      if ((i > 0 && !options_.prefix.empty()) || (last && !options_.suffix.empty())) {
        text.clear();
        if (i > 0) text += options_.prefix;
        text += key;
        if (last) text += options_.suffix;
        key = text;
      }
      id = vocabulary_.find(key);
      if (id < 0 && options_.byte_fallback) {
        bool all = true;
        for (char c : key) all = all && byte_ids_[uint8_t(c)] >= 0;
        if (all) {
          for (uint32_t k = 0; k < key.size(); ++k)
            symbols.push_back(
                {i + std::min(k, length - 1), i + std::min(k + 1, length), byte_ids_[uint8_t(key[k])]});
          i += length;
          continue;
        }
      }
    }
    if (id >= 0) {
      flush();
      symbols.push_back({i, i + length, id});
    } else if (options_.unk >= 0) {
      if (!options_.fuse_unk) flush();
      if (pending_unk < 0) unk_begin = i;
      pending_unk = options_.unk;
      unk_end = i + length;
    }
    i += length;
  }
  flush();
}

bool Bpe::merges_to_itself(std::string_view word, TokenId id) const {
  std::atomic<uint8_t>& known = whole_[size_t(id)];
  uint8_t state = known.load(std::memory_order_relaxed);
  if (state == 0) {
    Scratch& s = scratch();
    start_symbols(word, s.symbols);
    merge_symbols(s.symbols, s.pairs,
                  [&](const Symbol& l, const Symbol& r) { return merges_.find(l.id, r.id); });
    state = s.symbols.size() == 1 && s.symbols[0].id == id ? 1 : 2;
    known.store(state, std::memory_order_relaxed);
  }
  return state == 1;
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  check_word(word);
  const bool plain = options_.prefix.empty() && options_.suffix.empty();
  if (plain || options_.ignore_merges) {
    const TokenId id = vocabulary_.find(word);
    if (id >= 0 && (options_.ignore_merges || merges_to_itself(word, id))) {
      out.push_back(id);
      return;
    }
  }
  Scratch& s = scratch();
  start_symbols(word, s.symbols);
  merge_symbols(s.symbols, s.pairs,
                [&](const Symbol& l, const Symbol& r) { return merges_.find(l.id, r.id); });
  for (const Symbol& symbol : s.symbols) out.push_back(symbol.id);
}

RankBpe::RankBpe(const std::vector<std::pair<TokenId, std::string>>& tokens, const std::string& file) {
  byte_level_ = true;
  vocabulary_.reserve(tokens.size());
  for (const auto& [id, bytes] : tokens) {
    check_token_id(id, tokens.size(), file);
    vocabulary_.set(id, bytes);
  }
  for (int b = 0; b < 256; ++b) {
    const char byte = char(b);
    byte_ids_[size_t(b)] = vocabulary_.find({&byte, 1});
    if (byte_ids_[size_t(b)] < 0)
      fail(ErrorKind::invalid_file, "{}: the byte 0x{:02x} has no token, so not every text could be encoded",
           file, b);
  }
}

void RankBpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  check_word(word);
  const TokenId whole = vocabulary_.find(word);
  if (whole >= 0) {
    out.push_back(whole);
    return;
  }
  Scratch& s = scratch();
  s.symbols.clear();
  for (uint32_t i = 0; i < word.size(); ++i) s.symbols.push_back({i, i + 1, byte_ids_[uint8_t(word[i])]});
  merge_symbols(s.symbols, s.pairs, [&](const Symbol& l, const Symbol& r) {
    const TokenId id = vocabulary_.find(word.substr(l.begin, r.end - l.begin));
    return PairMap::Entry{id, id};
  });
  for (const Symbol& symbol : s.symbols) out.push_back(symbol.id);
}

}  // namespace cairn::text
