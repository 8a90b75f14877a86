// From one step's logits to one token, and from streamed text to where a stop string ends it.
//
// The chain, in this order (filters in llama.cpp's order, over the distribution that temperature shaped, as
// OpenAI-style servers and transformers do it):
//   mask (grammar)  ->  logit_bias  ->  repetition, frequency and presence penalties
//   temperature 0: the largest logit, the lowest id among equals; nothing below applies
//   temperature  ->  top_k  ->  typical_p  ->  top_p  ->  min_p  ->  one draw
// Every filter renormalises what the one before it left, and leaves at least one token.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/draw.h"
#include "text/tokenizer.h"

namespace cairn::text {

struct SamplingParams {
  float temperature = 0;  // 0 (and below 1e-5): greedy; up to 100
  int top_k = 0;          // the k most likely; 0: all
  float top_p = 1;        // (0, 1]: the fewest most likely tokens whose probabilities reach it
  float min_p = 0;        // [0, 1]: at least this fraction of the largest probability
  float typical_p = 1;    // (0, 1]: locally typical sampling (Meister et al. 2022, arXiv:2202.00666)
  // > 0, 1: off. Positive logits of tokens seen in prompt or answer are divided, negative ones multiplied
  // (CTRL, arXiv:1909.05858).
  float repetition_penalty = 1;
  float presence_penalty = 0;   // [-2, 2]: taken off once from each token of the answer so far
  float frequency_penalty = 0;  // [-2, 2]: taken off for each time it occurred in the answer so far
  int penalty_window = 0;       // only the last so many tokens of prompt and answer count; 0: all
  std::vector<std::pair<TokenId, float>> logit_bias;  // added; each in [-100, 100]
  uint64_t seed = 0;
  int logprobs = 0;  // how many of the most likely tokens to report with each; 0: none, up to 1000
  int n = 1;         // answers to one prompt, one Sampler with its own stream each; up to 1024
  std::vector<std::string> stop;  // texts that end the answer; up to 64 of at most 4096 bytes

  // Throws Error(invalid_argument) naming the field, its value and the range. vocabulary_size 0: ids
  // unchecked.
  void validate(int32_t vocabulary_size = 0) const;
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
};

// Which tokens may come next. A grammar implements it; the Sampler calls it.
class TokenMask {
 public:
  virtual ~TokenMask() = default;
  virtual void apply(std::span<float> logits) = 0;  // sets what may not come to -infinity
  virtual void accept(TokenId) = 0;                 // the token that was chosen
};

// Counter-based random numbers (Philox4x32-10: Salmon et al., SC'11): a pure function of seed, stream and
// step, the same on every machine.
uint64_t random_bits(uint64_t seed, uint32_t stream, uint64_t step);  // 53 of them
double uniform(uint64_t seed, uint32_t stream, uint64_t step);        // in [0, 1), the same bits

class Sampler {
 public:
  // stream: which of the n answers. Throws what validate throws.
  Sampler(const SamplingParams&, int32_t vocabulary_size, int stream);

  void set_mask(TokenMask* mask) { mask_ = mask; }  // not owned; null: none

  // Counts the prompt's tokens for the repetition penalty.
  void prompt(std::span<const TokenId>);

  // logits: vocabulary_size of them; overwritten. Throws Error(invalid_argument) when the mask leaves
  // nothing, or a logit is not a number.
  TokenId sample(std::span<float> logits);

  // What the next token is drawn with by somebody else, who has the scores and gives it the token that
  // sample() would return. Absent when only sample() can: with typical_p, logprobs or a mask. ahead: how many
  // tokens (0 or 1) have been drawn that were not yet told to drawn() and accept(); absent too where these
  // must be known.
  std::optional<Draw> next_draw(int ahead) const;
  // In the place of sample() for a token that was drawn so. Throws what sample() throws.
  TokenId drawn(int32_t token);

  // The token that the answer goes on with, usually the sampled one.
  void accept(TokenId);

  // Of the last sample: log probabilities of the model's own distribution (before bias, mask, penalties and
  // temperature), most likely first; the sampled token comes last when it is not among them.
  const std::vector<TokenLogprob>& top_logprobs() const { return logprobs_; }

  // What the last draw was made from; empty after a greedy choice.
  std::span<const Candidate> candidates() const { return drawer_.candidates(); }

 private:
  struct Seen {
    int all = 0, answer = 0;
  };
  void count(TokenId, bool answer);
  Draw describe_draw(int ahead) const;
  void collect_logprobs(std::span<const float> logits);

  SamplingParams params_;
  int32_t vocabulary_size_;
  uint32_t stream_;
  uint64_t step_ = 0;
  TokenMask* mask_ = nullptr;
  bool counts_ = false;  // tokens that were seen are penalised
  std::unordered_map<TokenId, Seen> seen_;
  std::deque<std::pair<TokenId, bool>> window_;  // token, whether it is of the answer
  Drawer drawer_;
  std::vector<TokenLogprob> logprobs_;
  double raw_log_sum_ = 0;
};

struct StopMatch {
  std::string text;  // what may be shown
  bool stopped = false;
};

// Finds stop strings in text that arrives in pieces, and holds back only what may still become one. The stop
// string that is complete first ends the text, the longest of those; the result does not depend on how the
// text was cut.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  StopMatch add(std::string_view text);  // nothing more once it has stopped
  std::string finish();                  // what was held back, when the text ends without a stop string

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace cairn::text
