// TEMPORARY until the sampler lands from its branch: replace this file then (greedy only).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>
#include "base/error.h"
#include "text/tokenizer.h"
namespace cairn::text {
struct SamplingParams {
  float temperature = 0;
  std::vector<std::string> stop;
  int logprobs = 0;
  uint64_t seed = 0;
};
struct TokenLogprob {
  TokenId token;
  float logprob;
};
class Sampler {
 public:
  Sampler(const SamplingParams&, int32_t, int) {}
  TokenId sample(std::span<float> l) {
    size_t b = 0;
    for (size_t i = 1; i < l.size(); ++i)
      if (l[i] > l[b]) b = i;
    return TokenId(b);
  }
  void accept(TokenId) {}
  std::vector<TokenLogprob> top_logprobs() { return {}; }
};
struct StopMatch {
  std::string text;
  bool stopped = false;
};
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>&) {}
  StopMatch add(std::string t) { return {std::move(t), false}; }
  std::string finish() { return {}; }
};
}  // namespace cairn::text
