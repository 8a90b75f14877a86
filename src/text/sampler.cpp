#include "text/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/plain_exp.h"

namespace cairn::text {

namespace {

constexpr float kGreedyBelow = 1e-5f;  // temperatures under it would overflow the scaled logits

void check(bool holds, const char* field, double value, const char* range) {
  if (!holds) fail(ErrorKind::invalid_argument, "{} is {}; it must be {}", field, value, range);
}

bool within(double v, double low, double high) { return v >= low && v <= high; }  // false for NaN

// Sums four running totals in float over runs short enough that their rounding is of the size of the terms'
// own.
class ExpSum {
 public:
  void add(Floats e) {
    run_ += e;
    if (++length_ == 128) flush();
  }
  double total() {
    flush();
    return total_;
  }

 private:
  void flush() {
    for (size_t j = 0; j < kLanes; ++j) total_ += double(run_[j]);
    run_ = Floats{};
    length_ = 0;
  }
  Floats run_ = {};
  int length_ = 0;
  double total_ = 0;
};

}  // namespace

void SamplingParams::validate(int32_t vocabulary_size) const {
  check(within(temperature, 0, 100), "temperature", temperature, "in [0, 100]");
  check(top_k >= 0, "top_k", top_k, "0 (off) or more");
  check(top_p > 0 && top_p <= 1, "top_p", top_p, "in (0, 1]");
  check(within(min_p, 0, 1), "min_p", min_p, "in [0, 1]");
  check(typical_p > 0 && typical_p <= 1, "typical_p", typical_p, "in (0, 1]");
  check(repetition_penalty > 0 && repetition_penalty <= 100, "repetition_penalty", repetition_penalty,
        "in (0, 100]");
  check(within(presence_penalty, -2, 2), "presence_penalty", presence_penalty, "in [-2, 2]");
  check(within(frequency_penalty, -2, 2), "frequency_penalty", frequency_penalty, "in [-2, 2]");
  check(penalty_window >= 0, "penalty_window", penalty_window, "0 (all tokens) or more");
  check(within(logprobs, 0, 1000), "logprobs", logprobs, "in [0, 1000]");
  check(within(n, 1, 1024), "n", n, "in [1, 1024]");
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0 || (vocabulary_size > 0 && token >= vocabulary_size))
      fail(ErrorKind::invalid_argument, "logit_bias names the token {}; the vocabulary has {}", token,
           vocabulary_size);
    if (!within(bias, -100, 100))
      fail(ErrorKind::invalid_argument, "logit_bias of the token {} is {}; it must be in [-100, 100]", token,
           bias);
  }
  if (stop.size() > 64)
    fail(ErrorKind::invalid_argument, "stop has {} strings; at most 64 are allowed", stop.size());
  for (const auto& s : stop)
    if (s.empty() || s.size() > 4096)
      fail(ErrorKind::invalid_argument, "stop has a string of {} bytes; each must have 1 to 4096", s.size());
}

uint64_t random_bits(uint64_t seed, uint32_t stream, uint64_t step) {
  uint32_t counter[4] = {uint32_t(step), uint32_t(step >> 32), stream, 0};
  uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    const uint32_t next[4] = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b),
                              uint32_t(a >> 32) ^ counter[3] ^ key[1], uint32_t(a)};
    std::copy(std::begin(next), std::end(next), std::begin(counter));
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return (uint64_t(counter[1]) << 32 | counter[0]) >> 11;
}

double uniform(uint64_t seed, uint32_t stream, uint64_t step) {
  return double(random_bits(seed, stream, step)) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& params, int32_t vocabulary_size, int stream)
    : params_(params), vocabulary_size_(vocabulary_size), stream_(uint32_t(stream)) {
  params_.validate(vocabulary_size);
  counts_ = describe_draw(0).penalises();
}

void Sampler::count(TokenId token, bool answer) {
  if (!counts_) return;
  Seen& s = seen_[token];
  ++s.all;
  s.answer += answer;
  if (params_.penalty_window == 0) return;
  window_.emplace_back(token, answer);
  if (int64_t(window_.size()) <= params_.penalty_window) return;
  const auto [old, of_answer] = window_.front();
  window_.pop_front();
  const auto at = seen_.find(old);
  at->second.answer -= of_answer;
  if (--at->second.all == 0) seen_.erase(at);
}

void Sampler::prompt(std::span<const TokenId> tokens) {
  for (const TokenId t : tokens) count(t, false);
}

void Sampler::accept(TokenId token) {
  count(token, true);
  if (mask_) mask_->accept(token);
}

Draw Sampler::describe_draw(int ahead) const {
  Draw d;
  const bool greedy = params_.temperature < kGreedyBelow;
  d.scale = greedy ? 0 : 1 / params_.temperature;
  d.top_k = params_.top_k < vocabulary_size_ ? params_.top_k : 0;
  d.typical_p = uint64_t(double(params_.typical_p) * double(kWhole));
  d.top_p = uint64_t(double(params_.top_p) * double(kWhole));
  d.min_p = params_.min_p;
  d.random = greedy ? 0 : random_bits(params_.seed, stream_, step_ + uint64_t(ahead));
  d.repetition_penalty = params_.repetition_penalty;
  d.presence_penalty = params_.presence_penalty;
  d.frequency_penalty = params_.frequency_penalty;
  std::unordered_map<TokenId, size_t> places;
  const auto edit = [&](TokenId token) -> Edit& {
    const auto [at, added] = places.try_emplace(token, d.edits.size());
    if (added) d.edits.push_back({token});
    return d.edits[at->second];
  };
  for (const auto& [token, bias] : params_.logit_bias) edit(token).bias += bias;
  if (!d.penalises()) return d;
  d.count_input = ahead > 0;
  for (const auto& [token, seen] : seen_) {
    if (params_.repetition_penalty == 1 && seen.answer == 0) continue;
    if (params_.logit_bias.empty()) {
      d.edits.push_back({token, 0, seen.all, seen.answer});
    } else {
      auto& e = edit(token);
      e.seen = seen.all, e.answered = seen.answer;
    }
  }
  return d;
}

std::optional<Draw> Sampler::next_draw(int ahead) const {
  if (params_.typical_p < 1 || params_.logprobs > 0 || mask_) return std::nullopt;
  if (ahead > 0 && params_.penalty_window > 0) return std::nullopt;  // which token leaves the window?
  return describe_draw(ahead);
}

TokenId Sampler::drawn(int32_t token) {
  if (token == kNotNumbers)
    fail(ErrorKind::invalid_argument,
         "the model's logits are not numbers (NaN); its weights or their file are broken");
  if (token == kNothingAllowed)
    fail(ErrorKind::invalid_argument, "no token may come next: the mask or logit_bias forbids all of them");
  if (token < 0 || token >= vocabulary_size_)
    fail(ErrorKind::invalid_argument, "the token {} was drawn from a vocabulary of {}", token,
         vocabulary_size_);
  ++step_;
  return token;
}

void Sampler::collect_logprobs(std::span<const float> logits) {
  logprobs_.clear();
  const auto wanted = std::min(size_t(params_.logprobs), logits.size());
  const float largest = *std::max_element(logits.begin(), logits.end());
  ExpSum sum;
  for_each_exp(logits, largest, 1, [&](size_t, Floats e) { sum.add(e); });
  raw_log_sum_ = std::log(sum.total()) + double(largest);
  // A heap of the best so far, its worst on top.
  const auto better = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logprobs_.size() == wanted && !(logits[i] > logprobs_.front().logprob)) continue;
    if (logprobs_.size() == wanted) {
      std::pop_heap(logprobs_.begin(), logprobs_.end(), better);
      logprobs_.pop_back();
    }
    logprobs_.push_back({TokenId(i), logits[i]});
    std::push_heap(logprobs_.begin(), logprobs_.end(), better);
  }
  std::sort(logprobs_.begin(), logprobs_.end(), better);
  for (auto& l : logprobs_) l.logprob = float(double(l.logprob) - raw_log_sum_);
}

TokenId Sampler::sample(std::span<float> logits) {
  if (logits.empty() || logits.size() != size_t(vocabulary_size_))
    fail(ErrorKind::invalid_argument, "{} logits for a vocabulary of {}", logits.size(), vocabulary_size_);
  if ((params_.logprobs > 0 || mask_) && has_nan(logits)) drawn(kNotNumbers);
  std::vector<float> raw;
  if (params_.logprobs > 0) {
    collect_logprobs(logits);
    raw.assign(logits.begin(), logits.end());
  }
  if (mask_) mask_->apply(logits);
  const TokenId chosen = drawn(drawer_.draw(describe_draw(0), 0, logits));
  if (!raw.empty() &&
      std::none_of(logprobs_.begin(), logprobs_.end(), [&](const auto& l) { return l.token == chosen; }))
    logprobs_.push_back({chosen, float(double(raw[size_t(chosen)]) - raw_log_sum_)});
  return chosen;
}

StopMatch StopMatcher::add(std::string_view text) {
  if (stopped_) return {"", true};
  held_ += text;
  size_t first_end = std::string::npos, start = 0;
  for (const auto& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < start)) first_end = end, start = at;
  }
  if (first_end != std::string::npos) {
    stopped_ = true;
    held_.resize(start);
    return {std::exchange(held_, {}), true};
  }
  size_t longest = 0;  // what of the end may be the beginning of a stop string
  for (const auto& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
  StopMatch match{held_.substr(0, held_.size() - longest), false};
  held_.erase(0, held_.size() - longest);
  return match;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace cairn::text
