#include "text/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace cairn::text {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreedyBelow = 1e-5f;  // temperatures under it would overflow the scaled logits

void check(bool holds, const char* field, double value, const char* range) {
  if (!holds) fail(ErrorKind::invalid_argument, "{} is {}; it must be {}", field, value, range);
}

bool within(double v, double low, double high) { return v >= low && v <= high; }  // false for NaN

// Four at once in plain products and sums (no libm, no fma): vectors wherever there are some, and the same
// bits everywhere.
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
constexpr size_t kLanes = 4;

// e^x for x <= 0, zero below -87, relative error under 2e-7: x = n ln 2 + r with |r| <= ln(2) / 2, a
// polynomial for e^r, and 2^n put into the exponent.
inline Floats exp_negative(Floats x) {
  const Ints in_range = x >= -87.0f;
  const Ints kept = std::bit_cast<Ints>(x) & in_range;  // zeros elsewhere, so that n stays small
  x = std::bit_cast<Floats>(kept);
  const Floats n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest: 1.5 * 2^23
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  return std::bit_cast<Floats>(std::bit_cast<Ints>(p * std::bit_cast<Floats>(power)) & in_range);
}

inline float exp_or_zero(float x) { return exp_negative(Floats{x})[0]; }

// Calls use(first index, four values) over e^((logit - largest) * scale); values past the end are zero.
template <typename Use>
inline void for_each_exp(std::span<const float> logits, float largest, float scale, Use&& use) {
  for (size_t i = 0; i < logits.size(); i += kLanes) {
    Floats x;
    if (i + kLanes <= logits.size()) {
      std::memcpy(&x, logits.data() + i, sizeof x);
    } else {
      for (size_t j = 0; j < kLanes; ++j) x[j] = i + j < logits.size() ? logits[i + j] : -kInfinity;
    }
    use(i, exp_negative((x - largest) * scale));
  }
}

bool more_likely(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

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

double uniform(uint64_t seed, uint32_t stream, uint64_t step) {
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
  const uint64_t bits = uint64_t(counter[1]) << 32 | counter[0];
  return double(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& params, int32_t vocabulary_size, int stream)
    : params_(params), vocabulary_size_(vocabulary_size), stream_(uint32_t(stream)) {
  params_.validate(vocabulary_size);
}

void Sampler::count(TokenId token, bool answer) {
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

void Sampler::penalise(std::span<float> logits) const {
  const float repetition = params_.repetition_penalty;
  if (repetition == 1 && params_.presence_penalty == 0 && params_.frequency_penalty == 0) return;
  for (const auto& [token, seen] : seen_) {
    if (token < 0 || size_t(token) >= logits.size()) continue;
    float& logit = logits[size_t(token)];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (seen.answer > 0) logit -= float(seen.answer) * params_.frequency_penalty + params_.presence_penalty;
  }
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
  if (std::any_of(logits.begin(), logits.end(), [](float l) { return l != l; }))
    fail(ErrorKind::invalid_argument,
         "the model's logits are not numbers (NaN); its weights or their file are broken");
  std::vector<float> raw;
  if (params_.logprobs > 0) {
    collect_logprobs(logits);
    raw.assign(logits.begin(), logits.end());
  }

  if (mask_) mask_->apply(logits);
  for (const auto& [token, bias] : params_.logit_bias) logits[size_t(token)] += bias;
  penalise(logits);

  kept_.clear();
  const size_t best = size_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const float largest = logits[best];
  if (largest == -kInfinity)
    fail(ErrorKind::invalid_argument, "no token may come next: the mask or logit_bias forbids all of them");
  TokenId chosen = TokenId(best);
  if (params_.temperature >= kGreedyBelow && largest < kInfinity) {
    params_.top_k > 0 && params_.top_k < vocabulary_size_ ? keep_top_k(logits, largest)
                                                          : keep_all(logits, largest);
    if (params_.typical_p < 1) keep_typical();
    if (params_.top_p < 1) keep_top_p();
    if (params_.min_p > 0) keep_min_p();
    chosen = draw();
  }
  ++step_;

  if (!raw.empty() &&
      std::none_of(logprobs_.begin(), logprobs_.end(), [&](const auto& l) { return l.token == chosen; }))
    logprobs_.push_back({chosen, float(double(raw[size_t(chosen)]) - raw_log_sum_)});
  return chosen;
}

void Sampler::keep_all(std::span<const float> logits, float largest) {
  const float scale = 1 / params_.temperature;
  weights_.resize(ptrdiff_t(logits.size() + kLanes - 1) / ptrdiff_t(kLanes) * ptrdiff_t(kLanes));
  ExpSum sum;
  for_each_exp(logits, largest, scale, [&](size_t i, Floats e) {
    sum.add(e);
    std::memcpy(weights_.data() + i, &e, sizeof e);
  });
  // Only what the next filters can keep becomes a candidate.
  float floor = 0;
  if (params_.typical_p == 1) floor = params_.top_p < 1 ? nucleus_floor(sum.total()) : params_.min_p;
  const double total = sum.total();
  for (size_t i = 0; i < logits.size(); ++i)
    if (weights_[i] >= floor)
      kept_.push_back({TokenId(i), (logits[i] - largest) * scale, float(double(weights_[i]) / total)});
  sorted_ = false;
  if (params_.typical_p == 1 && params_.top_p == 1) normalise();
}

// A weight under which no token of the nucleus lies: the mass per eighth of an octave, summed from the top.
float Sampler::nucleus_floor(double total) const {
  constexpr uint32_t kShift = 20;  // sign and exponent and three bits of the mantissa: weights are in [0, 1]
  double mass[(0x3F800000 >> kShift) + 1] = {};
  for (const float w : weights_) mass[std::bit_cast<uint32_t>(w) >> kShift] += double(w);
  // The candidates' probabilities are summed again, rounded: a little more than top_p must be there.
  const double goal = double(params_.top_p) * total * (1 + 1e-6);
  double reached = 0;
  for (size_t b = std::size(mass); b-- > 0;) {
    reached += mass[b];
    if (reached >= goal) return std::bit_cast<float>(uint32_t(b) << kShift);
  }
  return 0;
}

void Sampler::keep_top_k(std::span<const float> logits, float largest) {
  // A heap of the k best so far with the worst on top: in random order it changes about k ln(V / k) times, so
  // nearly all of the time goes into one comparison per logit.
  const auto k = size_t(params_.top_k);
  const auto worse_on_top = [](const Candidate& a, const Candidate& b) { return more_likely(a, b); };
  float bar = -kInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (kept_.size() == k && !(logits[i] > bar)) continue;
    if (logits[i] == -kInfinity) continue;
    if (kept_.size() == k) {
      std::pop_heap(kept_.begin(), kept_.end(), worse_on_top);
      kept_.pop_back();
    }
    kept_.push_back({TokenId(i), logits[i], 0});
    std::push_heap(kept_.begin(), kept_.end(), worse_on_top);
    bar = kept_.front().logit;
  }
  std::sort(kept_.begin(), kept_.end(), more_likely);
  const float scale = 1 / params_.temperature;
  for (Candidate& c : kept_) {
    c.logit = (c.logit - largest) * scale;
    c.probability = exp_or_zero(c.logit);
  }
  sorted_ = true;
  normalise();
}

// Makes the probabilities sum to 1.
void Sampler::normalise() {
  double total = 0;
  for (const Candidate& c : kept_) total += double(c.probability);
  for (Candidate& c : kept_) c.probability = float(double(c.probability) / total);
}

namespace {

// The fewest first candidates, in the given order, whose probabilities reach `goal`. Sorts only as far as
// needed.
template <typename Order>
void keep_until(std::vector<Sampler::Candidate>& kept, double goal, bool sorted, Order order) {
  double reached = 0;
  size_t done = 0, chunk = 256;
  while (done < kept.size()) {
    const size_t end = std::min(kept.size(), done + chunk);
    if (!sorted) {
      if (end < kept.size())
        std::nth_element(kept.begin() + ptrdiff_t(done), kept.begin() + ptrdiff_t(end), kept.end(), order);
      std::sort(kept.begin() + ptrdiff_t(done), kept.begin() + ptrdiff_t(end), order);
    }
    for (; done < end; ++done) {
      reached += double(kept[done].probability);
      if (reached >= goal) {
        kept.resize(done + 1);
        return;
      }
    }
    chunk *= 4;
  }
}

}  // namespace

void Sampler::keep_top_p() {
  keep_until(kept_, double(params_.top_p), sorted_, more_likely);
  sorted_ = true;
  normalise();
}

// Tokens whose surprise is nearest to the expected surprise (the entropy), until they reach typical_p.
void Sampler::keep_typical() {
  double total = 0;
  for (const Candidate& c : kept_) total += double(exp_or_zero(c.logit));
  const double log_total = std::log(total);
  double entropy = 0;
  for (const Candidate& c : kept_)
    if (c.probability > 0) entropy += double(c.probability) * (log_total - double(c.logit));
  const auto distance = [&](const Candidate& c) {
    return std::abs(float(log_total - double(c.logit) - entropy));
  };
  keep_until(kept_, double(params_.typical_p), false, [&](const Candidate& a, const Candidate& b) {
    const float x = distance(a), y = distance(b);
    return x != y ? x < y : more_likely(a, b);
  });
  std::sort(kept_.begin(), kept_.end(), more_likely);
  sorted_ = true;
  normalise();
}

void Sampler::keep_min_p() {
  float largest = 0;
  for (const Candidate& c : kept_) largest = std::max(largest, c.probability);
  const float floor = largest * params_.min_p;
  std::erase_if(kept_, [&](const Candidate& c) { return c.probability < floor; });
  normalise();
}

TokenId Sampler::draw() {
  const double at = uniform(params_.seed, stream_, step_);
  double reached = 0;
  for (const Candidate& c : kept_) {
    reached += double(c.probability);
    if (at < reached) return c.token;
  }
  // The rounded probabilities summed to a little less than 1: the last that can be drawn.
  const auto last =
      std::find_if(kept_.rbegin(), kept_.rend(), [](const Candidate& c) { return c.probability > 0; });
  return last->token;
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
