// From token texts back to text, as a chain of steps (Hugging Face tokenizers' "decoder"). A chain is
// described once and started anew for each sequence, so decoding a whole sequence and streaming it are the
// same code.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::text {

struct DecodedToken {
  TokenId id = -1;  // -1 once steps have joined or split tokens
  std::string text;
};

// One step at work on one sequence. Output goes to `next`, in order.
class DecodeStage {
 public:
  using Tokens = std::vector<DecodedToken>;
  virtual ~DecodeStage() = default;
  virtual void add(DecodedToken token, Tokens& next) = 0;
  virtual void skip(Tokens&) {}  // a special token stood here; asked of the first stage only
  virtual void finish(Tokens&) {}
};

class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  // fragments: an earlier step has joined all tokens into one, which arrives in parts.
  virtual std::unique_ptr<DecodeStage> start(bool fragments) const = 0;
  virtual bool joins() const { return false; }            // its output is parts of one token
  virtual bool takes_fragments() const { return false; }  // it works on such parts; else they are held back
  // The bytes of one token in the middle of a text.
  virtual std::string piece(std::string text) const { return text; }
};

class DecoderChain {
 public:
  void add(std::unique_ptr<DecoderStep> step) { steps_.push_back(std::move(step)); }
  // No step at all: tokens are joined with spaces, as Hugging Face does for tokenizers without a decoder.
  bool empty() const { return steps_.empty(); }

  class Run {
   public:
    explicit Run(const DecoderChain&);
    std::string add(TokenId, std::string text);
    std::string skip();  // in place of a special token that is not to be shown
    std::string finish();

   private:
    void pass(size_t stage, DecodeStage::Tokens tokens, std::string& out);
    bool spaces_ = false, first_ = true;
    std::vector<std::unique_ptr<DecodeStage>> stages_;
  };
  std::string piece(std::string text) const;

 private:
  std::vector<std::unique_ptr<DecoderStep>> steps_;
};

std::unique_ptr<DecoderStep> byte_level_decoder();
std::unique_ptr<DecoderStep> byte_fallback_decoder();
std::unique_ptr<DecoderStep> fuse_decoder();
std::unique_ptr<DecoderStep> strip_decoder(uint32_t content, size_t start, size_t stop);
std::unique_ptr<DecoderStep> replace_decoder(std::string from, std::string to);
std::unique_ptr<DecoderStep> metaspace_decoder(uint32_t replacement, bool drops_first);
std::unique_ptr<DecoderStep> word_piece_decoder(std::string prefix, bool cleanup);
std::unique_ptr<DecoderStep> bpe_decoder(std::string suffix);
std::unique_ptr<DecoderStep> ctc_decoder(std::string pad, std::string word_delimiter, bool cleanup);

}  // namespace cairn::text
