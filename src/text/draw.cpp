#include "text/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/plain_exp.h"

namespace cairn::text {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.token < b.token;
}

uint64_t total_mass(std::span<const Candidate> kept) {
  uint64_t total = 0;
  for (const auto& c : kept) total += c.mass;
  return total;
}

}  // namespace

// Both below are done for every token of every answer, between two steps.
bool has_nan(std::span<const float> scores) {
  Ints found[4] = {};
  size_t i = 0;
  for (; i + 4 * kLanes <= scores.size(); i += 4 * kLanes)
    for (size_t j = 0; j < 4; ++j) {
      Floats x;
      std::memcpy(&x, scores.data() + i + j * kLanes, sizeof x);
      found[j] |= x != x;
    }
  const Ints any = found[0] | found[1] | found[2] | found[3];
  bool nan = (any[0] | any[1] | any[2] | any[3]) != 0;
  for (; i < scores.size(); ++i) nan |= scores[i] != scores[i];
  return nan;
}

size_t first_largest(std::span<const float> scores) {
  constexpr size_t kBlock = 64 * kLanes;
  float largest = -kInfinity;
  size_t block = 0, i = 0;  // where the first of the largest is
  for (; i + kBlock <= scores.size(); i += kBlock) {
    Floats most[4];
    std::memcpy(most, scores.data() + i, sizeof most);
    for (size_t k = 4 * kLanes; k < kBlock; k += 4 * kLanes)
      for (size_t j = 0; j < 4; ++j) {
        Floats x;
        std::memcpy(&x, scores.data() + i + k + j * kLanes, sizeof x);
        most[j] = x > most[j] ? x : most[j];
      }
    float of_block = -kInfinity;
    for (const Floats& m : most)
      for (size_t j = 0; j < kLanes; ++j) of_block = std::max(of_block, m[j]);
    if (of_block > largest) largest = of_block, block = i;
  }
  const auto rest = std::max_element(scores.begin() + int64_t(i), scores.end());
  if (rest != scores.end() && *rest > largest) return size_t(rest - scores.begin());
  return size_t(std::find(scores.begin() + int64_t(block), scores.end(), largest) - scores.begin());
}

void edit_scores(const Draw& draw, TokenId input, std::span<float> scores) {
  if (!draw.mask.empty())
    for (size_t i = 0; i < scores.size(); ++i)
      if (i / 32 >= draw.mask.size() || !(draw.mask[i / 32] >> (i % 32) & 1))
        scores[i] = -std::numeric_limits<float>::infinity();
  const auto edit = [&](Edit e) {
    if (e.token < 0 || size_t(e.token) >= scores.size()) return;
    float& score = scores[size_t(e.token)];
    score += e.bias;
    if (e.seen > 0) score = score > 0 ? score / draw.repetition_penalty : score * draw.repetition_penalty;
    if (e.answered > 0) score -= float(e.answered) * draw.frequency_penalty + draw.presence_penalty;
  };
  bool counted = !draw.count_input;
  for (Edit e : draw.edits) {
    if (draw.count_input && e.token == input) ++e.seen, ++e.answered, counted = true;
    edit(e);
  }
  if (!counted) edit({input, 0, 1, 1});
}

void Drawer::keep_all(const Draw& how, std::span<const float> logits, float largest) {
  weights_.resize((logits.size() + kLanes - 1) / kLanes * kLanes);
  for_each_exp(logits, largest, how.scale,
               [&](size_t i, Floats e) { std::memcpy(weights_.data() + i, &e, sizeof e); });
  // Only what the next filters can keep becomes a candidate.
  total_ = 0;
  for (const float w : weights_) total_ += mass_of(w);
  float floor = 0;
  if (how.typical_p == kWhole && how.top_p < kWhole) {
    floor = nucleus_floor(share_up(total_, how.top_p));
  } else if (how.typical_p == kWhole) {
    floor = how.min_p;
  }
  for (size_t i = 0; i < logits.size(); ++i)
    if (weights_[i] >= floor)
      kept_.push_back({TokenId(i), logits[i], (logits[i] - largest) * how.scale, 0, mass_of(weights_[i])});
  sorted_ = false;
}

// A weight under which no token of the nucleus lies: the mass per eighth of an octave, summed from the top.
float Drawer::nucleus_floor(uint64_t goal) const {
  constexpr uint32_t kShift = 20;  // sign and exponent and three bits of the mantissa: weights are in [0, 1]
  uint64_t mass[(0x3F800000 >> kShift) + 1] = {};
  for (const float w : weights_) mass[std::bit_cast<uint32_t>(w) >> kShift] += mass_of(w);
  uint64_t reached = 0;
  for (size_t b = std::size(mass); b-- > 0;) {
    reached += mass[b];
    if (reached >= goal) return std::bit_cast<float>(uint32_t(b) << kShift);
  }
  return 0;
}

void Drawer::keep_top_k(const Draw& how, std::span<const float> logits, float largest) {
  // A heap of the k best so far with the worst on top: in random order it changes about k ln(V / k) times, so
  // nearly all of the time goes into one comparison per logit.
  const auto k = size_t(how.top_k);
  const auto worse_on_top = [](const Candidate& a, const Candidate& b) { return more_likely(a, b); };
  float bar = -kInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (kept_.size() == k && !(logits[i] > bar)) continue;
    if (logits[i] == -kInfinity) continue;
    if (kept_.size() == k) {
      std::pop_heap(kept_.begin(), kept_.end(), worse_on_top);
      kept_.pop_back();
    }
    kept_.push_back({TokenId(i), logits[i]});
    std::push_heap(kept_.begin(), kept_.end(), worse_on_top);
    bar = kept_.front().score;
  }
  std::sort(kept_.begin(), kept_.end(), more_likely);
  for (Candidate& c : kept_) {
    c.logit = (c.score - largest) * how.scale;
    c.mass = mass_of(exp_or_zero(c.logit));
  }
  total_ = total_mass(kept_);
  sorted_ = true;
}

// Makes the probabilities sum to 1.
void Drawer::normalise() {
  const double total = double(total_mass(kept_));
  for (Candidate& c : kept_) c.probability = float(double(c.mass) / total);
}

namespace {

// The fewest first candidates, in the given order, whose masses reach `goal`. Sorts only as far as needed.
template <typename Order>
void keep_until(std::vector<Candidate>& kept, uint64_t goal, bool sorted, Order order) {
  uint64_t reached = 0;
  size_t done = 0, chunk = 256;
  while (done < kept.size()) {
    const size_t end = std::min(kept.size(), done + chunk);
    if (!sorted) {
      if (end < kept.size())
        std::nth_element(kept.begin() + ptrdiff_t(done), kept.begin() + ptrdiff_t(end), kept.end(), order);
      std::sort(kept.begin() + ptrdiff_t(done), kept.begin() + ptrdiff_t(end), order);
    }
    for (; done < end; ++done) {
      reached += kept[done].mass;
      if (reached >= goal) {
        kept.resize(done + 1);
        return;
      }
    }
    chunk *= 4;
  }
}

}  // namespace

void Drawer::keep_top_p(uint64_t part) {
  keep_until(kept_, share_up(total_, part), sorted_, more_likely);
  sorted_ = true;
}

// Tokens whose surprise is nearest to the expected surprise (the entropy), until they reach typical_p.
void Drawer::keep_typical(uint64_t part) {
  normalise();
  double total = 0;
  for (const Candidate& c : kept_) total += double(exp_or_zero(c.logit));
  const double log_total = std::log(total);
  double entropy = 0;
  for (const Candidate& c : kept_)
    if (c.probability > 0) entropy += double(c.probability) * (log_total - double(c.logit));
  const auto distance = [&](const Candidate& c) {
    return std::abs(float(log_total - double(c.logit) - entropy));
  };
  keep_until(kept_, share_up(total_, part), false, [&](const Candidate& a, const Candidate& b) {
    const float x = distance(a), y = distance(b);
    return x != y ? x < y : more_likely(a, b);
  });
  std::sort(kept_.begin(), kept_.end(), more_likely);
  total_ = total_mass(kept_);
  sorted_ = true;
}

void Drawer::keep_min_p(float part) {
  float largest = -kInfinity;
  for (const Candidate& c : kept_) largest = std::max(largest, c.logit);
  const float floor = exp_or_zero(largest) * part;
  std::erase_if(kept_, [&](const Candidate& c) { return exp_or_zero(c.logit) < floor; });
}

int32_t Drawer::draw(const Draw& how, TokenId input, std::span<float> scores) {
  kept_.clear();
  if (has_nan(scores)) return kNotNumbers;
  edit_scores(how, input, scores);
  const size_t best = first_largest(scores);
  const float largest = scores[best];
  if (largest == -kInfinity) return kNothingAllowed;
  if (how.scale == 0 || largest == kInfinity) return TokenId(best);
  how.top_k > 0 ? keep_top_k(how, scores, largest) : keep_all(how, scores, largest);
  if (how.typical_p < kWhole) keep_typical(how.typical_p);
  if (how.top_p < kWhole) keep_top_p(how.top_p);
  if (how.min_p > 0) keep_min_p(how.min_p);
  normalise();
  const uint64_t at = share_of(total_mass(kept_), how.random);
  uint64_t reached = 0;
  for (const Candidate& c : kept_) {
    reached += c.mass;
    if (at < reached) return c.token;
  }
  return kept_.front().token;  // not reached: random is less than the whole
}

}  // namespace cairn::text
