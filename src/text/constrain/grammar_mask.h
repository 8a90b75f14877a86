// A grammar's mask for the Sampler (sampler.h): computed where there is time, applied where the logits are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/constrain/grammar.h"
#include "text/sampler.h"

namespace cairn::text {

// Sets the logits whose bit is 0 to -infinity; those past the bits, too.
void apply_mask(std::span<const uint32_t> bits, std::span<float> logits);

class GrammarMask : public TokenMask {
 public:
  GrammarMask(GrammarPtr grammar, int32_t vocabulary_size)
      : matcher_(std::move(grammar)), bits_((size_t(vocabulary_size) + 31) / 32) {}

  // Computes the next mask; from any thread, but not while another call is running. apply() does it where
  // nobody did.
  void prepare() {
    if (!ready_) matcher_.fill_mask(bits_);
    ready_ = true;
  }
  void apply(std::span<float> logits) override {
    prepare();
    apply_mask(bits_, logits);
  }
  // Throws Error(invalid_argument) for a token that the mask does not allow.
  void accept(TokenId) override;
  GrammarMatcher& matcher() { return matcher_; }

 private:
  GrammarMatcher matcher_;
  std::vector<uint32_t> bits_;
  bool ready_ = false;
};

}  // namespace cairn::text
