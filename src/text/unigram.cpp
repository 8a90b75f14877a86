#include "text/unigram.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/error.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

constexpr double kUnknownPenalty = 10;
constexpr size_t kLongestPiece = 1024;  // keeps the search linear in the text

}  // namespace

Unigram::Unigram(const std::vector<UnigramPiece>& pieces, TokenId unk, bool byte_fallback,
                 Reference reference, const std::string& file)
    : unk_(unk), byte_fallback_(byte_fallback), reference_(reference) {
  if (unk >= 0 && size_t(unk) >= pieces.size())
    fail(ErrorKind::invalid_file, "{}: the unknown token is {}, but there are {} pieces", file, unk,
         pieces.size());
  const bool spm = reference == Reference::sentencepiece;
  vocabulary_.reserve(pieces.size());
  byte_ids_.fill(-1);
  double lowest = spm ? double(FLT_MAX) : HUGE_VAL;
  max_score_ = double(FLT_MIN);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const UnigramPiece& piece = pieces[i];
    const TokenId id = TokenId(i);
    if (std::isnan(piece.score))
      fail(ErrorKind::invalid_file, "{}: the score of piece {} is not a number", file, i);
    if (piece.text.size() > kLongestPiece)
      fail(ErrorKind::invalid_file, "{}: piece {} has {} bytes; at most {} are supported", file, i,
           piece.text.size(), kLongestPiece);
    vocabulary_.set(id, piece.text);
    scores_.push_back(piece.score);
    user_defined_.push_back(piece.type == PieceType::user_defined);
    const bool in_text = !spm || piece.type == PieceType::normal || piece.type == PieceType::user_defined;
    if (in_text) trie_.insert(piece.text, id);
    if (!spm || piece.type == PieceType::normal) {
      lowest = std::min(lowest, piece.score);
      max_score_ = std::max(max_score_, piece.score);
    }
    if (spm && piece.type != PieceType::byte) continue;
    if (const auto byte = byte_of_token(piece.text)) {
      if (piece.text == token_of_byte(*byte)) byte_ids_[*byte] = id;
    } else if (spm) {
      fail(ErrorKind::invalid_file,
           "{}: piece {} is of type byte, but its text \"{}\" is not <0x00> to <0xFF>", file, i, piece.text);
    }
  }
  unk_score_ = spm ? double(float(lowest) - float(kUnknownPenalty)) : lowest - kUnknownPenalty;
}

void Unigram::best_path(std::string_view word, std::vector<Node>& ends) const {
  const bool spm = reference_ == Reference::sentencepiece;
  ends.assign(word.size() + 1, {});
  const auto offer = [&](size_t end, double score, size_t start, TokenId id) {
    Node& node = ends[end];
    if (node.start >= 0 && !(score > node.score)) return;
    node = {score, int32_t(start), id};
  };
  for (size_t start = 0; start < word.size();) {
    const double before = ends[start].score;
    const size_t bytes = decode_utf8(word.substr(start)).bytes;
    bool single = false;
    trie_.prefixes(word.substr(start), [&](size_t length, TokenId id) {
      double score = scores_[size_t(id)];
      if (!spm) {
        score += before;
      } else {
        if (user_defined_[size_t(id)]) score = double(float(length) * float(max_score_)) - 0.1;
        score = double(float(score) + float(before));
      }
      offer(start + length, score, start, id);
      if (length == bytes) single = true;
    });
    if (!single) {
      if (unk_ < 0)
        fail(ErrorKind::invalid_argument,
             "the text has a character that the vocabulary lacks, and the tokenizer has no unknown token");
      offer(start + bytes, spm ? double(float(unk_score_) + float(before)) : unk_score_ + before, start,
            unk_);
    }
    start += bytes;
  }
}

void Unigram::emit_unknown(std::string_view text, std::vector<TokenId>& out) const {
  if (reference_ == Reference::huggingface) {
    const TokenId id = vocabulary_.find(text);
    if (id >= 0) {
      out.push_back(id);
      return;
    }
  }
  if (byte_fallback_ &&
      std::all_of(text.begin(), text.end(), [&](char c) { return byte_ids_[uint8_t(c)] >= 0; })) {
    for (char c : text) out.push_back(byte_ids_[uint8_t(c)]);
    return;
  }
  out.push_back(unk_);
}

void Unigram::encode(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() > 0x7ffffff)
    fail(ErrorKind::invalid_argument, "a text of {} bytes is too long to tokenize", word.size());
  thread_local std::vector<Node> ends;
  best_path(word, ends);
  std::vector<std::pair<std::string_view, TokenId>> path;
  for (size_t end = word.size(); end > 0;) {
    const Node& node = ends[end];
    const size_t start = size_t(node.start);
    // Neighbouring unknown characters are one unknown token.
    if (node.id == unk_ && !path.empty() && path.back().second == unk_)
      path.back().first = word.substr(
          start, size_t(path.back().first.data() - word.data()) - start + path.back().first.size());
    else
      path.emplace_back(word.substr(start, end - start), node.id);
    end = start;
  }
  for (auto step = path.rbegin(); step != path.rend(); ++step) {
    if (step->second == unk_)
      emit_unknown(step->first, out);
    else
      out.push_back(step->second);
  }
}

}  // namespace cairn::text
