// Byte-pair encoding with an explicit list of merges (Sennrich et al. 2016, arXiv:1508.07909) over bytes
// (GPT-2) or over characters with byte fallback (Llama 2 in tokenizer.json form), and rank-only BPE
// (tiktoken), where two neighbours merge when their joined bytes are a token, lowest id first.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "text/merge.h"
#include "text/model.h"

namespace cairn::text {

struct BpeOptions {
  bool byte_level = false;     // words are bytes; token texts are given in the visible alphabet
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges say
  bool byte_fallback = false;  // a character without token becomes "<0x..>" tokens, when all of them exist
  bool fuse_unk = false;       // neighbouring unknown characters become one unknown token
  TokenId unk = -1;            // -1: unknown characters vanish
  std::string prefix = {};     // continuing_subword_prefix: before every character but a word's first
  std::string suffix = {};     // end_of_word_suffix: after a word's last character
};

struct Merge {
  std::string_view left, right;
};

class Bpe final : public Model {
 public:
  // tokens: (id, text) pairs. merges: in rank order; a merge naming a token that does not exist throws
  // Error(invalid_file) with its number.
  Bpe(std::vector<std::pair<TokenId, std::string_view>> tokens, const std::vector<Merge>& merges, BpeOptions,
      const std::string& file);
  void encode(std::string_view word, std::vector<TokenId>& out) const override;

 private:
  void start_symbols(std::string_view word, std::vector<Symbol>&) const;
  bool merges_to_itself(std::string_view word, TokenId id) const;

  BpeOptions options_;
  PairMap merges_;
  std::array<TokenId, 256> byte_ids_{};
  // Per token whether merging its bytes gives it back: 0 not yet known, 1 yes, 2 no.
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
};

// tiktoken's form: token bytes, ranks are ids. Every single byte must be a token.
class RankBpe final : public Model {
 public:
  RankBpe(const std::vector<std::pair<TokenId, std::string>>& tokens, const std::string& file);
  void encode(std::string_view word, std::vector<TokenId>& out) const override;

 private:
  std::array<TokenId, 256> byte_ids_{};
};

}  // namespace cairn::text
