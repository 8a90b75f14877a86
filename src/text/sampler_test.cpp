#include "text/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "base/error.h"

namespace cairn::text {
namespace {

std::vector<float> random_logits(size_t n, uint64_t seed, float spread = 4) {
  std::vector<float> logits(n);
  for (size_t i = 0; i < n; ++i) {
    // Roughly normal: the sum of twelve uniform numbers.
    double sum = -6;
    for (uint32_t j = 0; j < 12; ++j) sum += uniform(seed, j, i);
    logits[i] = float(sum) * spread;
  }
  return logits;
}

// What the filters keep, written as their definitions read, in double over a full sort.
std::map<TokenId, double> reference(const std::vector<float>& logits, const SamplingParams& p) {
  std::vector<std::pair<double, TokenId>> order;
  for (size_t i = 0; i < logits.size(); ++i)
    order.emplace_back(-double(logits[i]) / double(p.temperature), TokenId(i));
  std::sort(order.begin(), order.end());
  const double best = order[0].first;
  std::vector<std::pair<double, TokenId>> kept;  // probability, token; most likely first
  for (const auto& [negative, token] : order) kept.emplace_back(std::exp(best - negative), token);
  if (p.top_k > 0) kept.resize(std::min(kept.size(), size_t(p.top_k)));
  const auto normalise = [&] {
    double sum = 0;
    for (const auto& k : kept) sum += k.first;
    for (auto& k : kept) k.first /= sum;
  };
  const auto until = [&](double goal) {
    double sum = 0;
    size_t n = 0;
    while (n < kept.size() && sum < goal) sum += kept[n++].first;
    kept.resize(n);
  };
  normalise();
  if (p.typical_p < 1) {
    double entropy = 0;
    for (const auto& k : kept) entropy -= k.first > 0 ? k.first * std::log(k.first) : 0;
    std::stable_sort(kept.begin(), kept.end(), [&](const auto& a, const auto& b) {
      return std::abs(-std::log(a.first) - entropy) < std::abs(-std::log(b.first) - entropy);
    });
    until(double(p.typical_p));
    std::stable_sort(kept.begin(), kept.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    normalise();
  }
  if (p.top_p < 1) until(double(p.top_p)), normalise();
  if (p.min_p > 0) {
    const double floor = kept[0].first * double(p.min_p);
    std::erase_if(kept, [&](const auto& k) { return k.first < floor; });
    normalise();
  }
  std::map<TokenId, double> result;
  for (const auto& [probability, token] : kept) result[token] = probability;
  return result;
}

TEST(Sampler, RandomNumbersArePhilox) {
  // Known answer of Random123 1.14 (kat_vectors, philox4x32-10): counter 0, key 0 gives 6627e8d5 e169c58d ...
  EXPECT_EQ(uniform(0, 0, 0), double(0xe169c58d6627e8d5ull >> 11) * 0x1p-53);
  EXPECT_NE(uniform(0, 1, 0), uniform(0, 0, 0));
  EXPECT_NE(uniform(1, 0, 0), uniform(0, 0, 0));
  EXPECT_NE(uniform(0, 0, 1), uniform(0, 0, 0));
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  std::vector<float> logits = {1, 5, 3, 5};
  Sampler sampler({}, 4, 0);
  EXPECT_EQ(sampler.sample(logits), 1);
  EXPECT_TRUE(sampler.candidates().empty());
}

TEST(Sampler, EachFilterKeepsWhatItsDefinitionKeeps) {
  std::vector<SamplingParams> cases;
  const auto with = [&](auto set) {
    SamplingParams p;
    p.temperature = 1;
    set(p);
    cases.push_back(p);
  };
  with([](auto&) {});
  with([](auto& p) { p.temperature = 0.3f; });
  for (const int k : {1, 2, 40, 5000}) with([&](auto& p) { p.top_k = k; });
  for (const float v : {0.01f, 0.5f, 0.95f, 0.999f}) with([&](auto& p) { p.top_p = v; });
  for (const float v : {0.01f, 0.3f, 1.0f}) with([&](auto& p) { p.min_p = v; });
  for (const float v : {0.05f, 0.5f, 0.95f}) with([&](auto& p) { p.typical_p = v; });
  with([](auto& p) { p.top_k = 40, p.top_p = 0.9f, p.temperature = 0.7f; });
  with([](auto& p) {
    p.top_k = 200, p.typical_p = 0.9f, p.top_p = 0.8f, p.min_p = 0.05f, p.temperature = 1.5f;
  });
  for (const size_t size : {size_t{2}, size_t{17}, size_t{3000}})
    for (const float spread : {0.01f, 1.0f, 8.0f})
      for (const auto& p : cases) {
        const auto logits = random_logits(size, size + uint64_t(spread * 100), spread);
        auto scratch = logits;
        Sampler sampler(p, int32_t(size), 0);
        const TokenId chosen = sampler.sample(scratch);
        const auto want = reference(logits, p);
        // Sums in float may stop one token earlier or later where the goal lies within rounding of a partial
        // sum.
        const auto got = sampler.candidates();
        EXPECT_NEAR(double(got.size()), double(want.size()), p.top_p < 1 || p.typical_p < 1 ? 1 : 0)
            << size << " " << spread << " k " << p.top_k << " p " << p.top_p << " min " << p.min_p
            << " typical " << p.typical_p;
        double sum = 0;
        int missing = 0;
        bool chosen_kept = false;
        for (const auto& c : got) {
          sum += double(c.probability);
          chosen_kept |= c.token == chosen;
          const auto at = want.find(c.token);
          missing += at == want.end();
          // e^x has 2e-7; x itself two roundings of |x| <= 87, 1e-5 of the result.
          if (at != want.end() && got.size() == want.size()) {
            EXPECT_NEAR(double(c.probability), at->second, 2e-5 * at->second + 1e-9);
          }
        }
        EXPECT_TRUE(chosen_kept);
        EXPECT_NEAR(sum, 1, 1e-4);
        EXPECT_LE(missing, 1);
      }
}

TEST(Draw, FindsTheFirstOfTheLargestAndWhatIsNoNumber) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<float> scores(1 + random() % 1100);
    const uint32_t values = trial % 3 == 0 ? 3 : 1 << 20;  // few values: many ties
    for (float& s : scores) s = float(int(random() % values)) - float(values) / 2;
    if (trial % 7 == 0) scores.assign(scores.size(), -std::numeric_limits<float>::infinity());
    EXPECT_EQ(first_largest(scores), size_t(std::max_element(scores.begin(), scores.end()) - scores.begin()));
    EXPECT_FALSE(has_nan(scores));
    scores[random() % scores.size()] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(has_nan(scores));
  }
}

// Pearson's statistic of draws against probabilities, and what it exceeds with probability 1e-9
// (Wilson-Hilferty: chi-square(df) is about df (1 - 2/(9 df) + z sqrt(2/(9 df)))^3, z = 6).
TEST(Sampler, DrawsFollowTheDistribution) {
  for (const auto& [temperature, top_k] : std::vector<std::pair<float, int>>{{1, 0}, {0.5f, 0}, {2, 7}}) {
    SamplingParams p;
    p.temperature = temperature;
    p.top_k = top_k;
    p.seed = 77;
    const auto logits = random_logits(20, 5, 1);
    const auto want = reference(logits, p);
    Sampler sampler(p, 20, 0);
    std::map<TokenId, int> counts;
    const int draws = 200'000;
    for (int i = 0; i < draws; ++i) {
      auto scratch = logits;
      ++counts[sampler.sample(scratch)];
    }
    double statistic = 0;
    int cells = 0;
    for (const auto& [token, probability] : want) {
      const double expected = probability * draws;
      if (expected < 5) continue;
      ++cells;
      statistic += (counts[token] - expected) * (counts[token] - expected) / expected;
    }
    for (const auto& [token, n] : counts)
      EXPECT_TRUE(want.contains(token)) << token << " was drawn " << n << " times";
    const double df = cells - 1, root = std::sqrt(2 / (9 * df));
    const double bound = df * std::pow(1 - 2 / (9 * df) + 6 * root, 3);
    EXPECT_GT(cells, 5);
    EXPECT_LT(statistic, bound) << "temperature " << temperature;
    EXPECT_GT(statistic, 0.01);
  }
}

TEST(Sampler, SameSeedSameTokens) {
  SamplingParams p;
  p.temperature = 1;
  p.top_p = 0.95f;
  const auto run = [&](uint64_t seed, int stream) {
    p.seed = seed;
    Sampler sampler(p, 500, stream);
    std::vector<TokenId> tokens;
    for (uint64_t i = 0; i < 40; ++i) {
      auto logits = random_logits(500, i, 1);
      tokens.push_back(sampler.sample(logits));
      sampler.accept(tokens.back());
    }
    return tokens;
  };
  EXPECT_EQ(run(1, 0), run(1, 0));
  EXPECT_NE(run(1, 0), run(2, 0));
  EXPECT_NE(run(1, 0), run(1, 1));
  // Written down once: other machines and compilers must give the same.
  const auto tokens = run(42, 0);
  EXPECT_EQ(std::vector<TokenId>(tokens.begin(), tokens.begin() + 8),
            (std::vector<TokenId>{262, 499, 134, 164, 10, 405, 186, 443}));
}

TEST(Sampler, Penalties) {
  SamplingParams p;
  p.repetition_penalty = 2;
  p.presence_penalty = 0.5f;
  p.frequency_penalty = 0.25f;
  p.temperature = 1;
  p.top_k = 0;
  Sampler sampler(p, 5, 0);
  sampler.prompt(std::vector<TokenId>{0, 1});
  for (const TokenId t : {1, 2, 2}) sampler.accept(t);
  std::vector<float> logits = {4, -1, 3, 2, 0};
  sampler.sample(logits);
  // 0: prompt only; 1: prompt and once; 2: twice; 3, 4: unseen.
  EXPECT_EQ(logits, (std::vector<float>{2, -2 - 0.5f - 0.25f, 1.5f - 0.5f - 0.5f, 2, 0}));

  p.penalty_window = 2;
  Sampler windowed(p, 5, 0);
  windowed.prompt(std::vector<TokenId>{0, 1});
  for (const TokenId t : {3, 4}) windowed.accept(t);
  std::vector<float> later = {4, 4, 4, 4, 4};
  windowed.sample(later);
  EXPECT_EQ(later, (std::vector<float>{4, 4, 4, 1.25f, 1.25f}));
}

TEST(Sampler, BiasAndMask) {
  struct OnlyOdd final : TokenMask {
    void apply(std::span<float> logits) override {
      for (size_t i = 0; i < logits.size(); i += all ? 1 : 2) logits[i] = -INFINITY;
    }
    void accept(TokenId t) override { accepted.push_back(t); }
    std::vector<TokenId> accepted;
    bool all = false;
  } mask;
  SamplingParams p;
  p.logit_bias = {{3, 100.0f}, {1, -100.0f}};
  Sampler sampler(p, 6, 0);
  std::vector<float> logits = {9, 8, 7, 6, 5, 4};
  EXPECT_EQ(sampler.sample(logits), 3);
  sampler.set_mask(&mask);
  p.temperature = 1;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    p.seed = seed;
    p.top_k = int(seed % 7);
    Sampler drawing(p, 6, 0);
    drawing.set_mask(&mask);
    logits = {90, 8, 70, -95, 50, 4};
    EXPECT_EQ(drawing.sample(logits) % 2, 1);
  }
  sampler.accept(3);
  EXPECT_EQ(mask.accepted, std::vector<TokenId>{3});
  mask.all = true;
  EXPECT_THROW(sampler.sample(logits), Error);
  sampler.set_mask(nullptr);
  logits.assign(6, NAN);
  EXPECT_THROW(sampler.sample(logits), Error);
}

TEST(Sampler, ReportsTheModelsOwnLogprobs) {
  SamplingParams p;
  p.temperature = 0.1f;
  p.logprobs = 3;
  p.logit_bias = {{4, 100.0f}};
  Sampler sampler(p, 50, 0);
  const auto logits = random_logits(50, 9, 2);
  auto scratch = logits;
  EXPECT_EQ(sampler.sample(scratch), 4);
  const auto top = sampler.top_logprobs();
  ASSERT_EQ(top.size(), 4u);
  double sum = 0;
  for (const float l : logits) sum += std::exp(double(l));
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  for (size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(double(top[i].logprob), double(sorted[i]) - std::log(sum), 2e-6 * 10);
  EXPECT_EQ(top[3].token, 4);
  EXPECT_NEAR(double(top[3].logprob), double(logits[4]) - std::log(sum), 2e-5);
}

// An answer whose tokens are drawn elsewhere, one step ahead of what its sampler has been told, is the same.
TEST(Sampler, DrawsElsewhereAndAheadTheSame) {
  std::vector<SamplingParams> cases(7);
  for (auto& p : cases) p.temperature = 1.5f, p.seed = 3;
  cases[0].temperature = 0;
  cases[1].top_k = 7;
  cases[2].top_p = 0.8f, cases[2].min_p = 0.01f;
  cases[3].min_p = 0.1f, cases[3].logit_bias = {{5, 3.f}, {6, -100.f}, {5, 1.f}};
  cases[4].repetition_penalty = 1.3f, cases[4].logit_bias = {{5, 3.f}};
  cases[5].presence_penalty = 0.7f, cases[5].frequency_penalty = 0.4f;
  cases[6].repetition_penalty = 1.3f, cases[6].frequency_penalty = 2, cases[6].temperature = 0;
  for (const auto& p : cases) {
    Sampler here(p, 60, 1), there(p, 60, 1);
    Drawer drawer;
    const std::vector<TokenId> prompt = {1, 2, 3, 2};
    here.prompt(prompt), there.prompt(prompt);
    TokenId before = 2, pending = -1;
    for (uint64_t i = 0; i < 40; ++i) {
      auto logits = random_logits(60, i, 1), same = logits;
      const auto draw = there.next_draw(pending >= 0 ? 1 : 0);
      ASSERT_TRUE(draw);
      const int32_t token = drawer.draw(*draw, before, same);
      if (pending >= 0) there.drawn(pending), there.accept(pending);
      pending = before = token;
      const TokenId expected = here.sample(logits);
      here.accept(expected);
      ASSERT_EQ(token, expected) << "draw " << i << ", temperature " << p.temperature;
    }
  }
  SamplingParams p;
  p.penalty_window = 4;
  EXPECT_TRUE(Sampler(p, 60, 0).next_draw(0));
  EXPECT_FALSE(Sampler(p, 60, 0).next_draw(1));
  p.logprobs = 1;
  EXPECT_FALSE(Sampler(p, 60, 0).next_draw(0));
  EXPECT_THROW(Sampler(p, 60, 0).drawn(kNotNumbers), Error);
  EXPECT_THROW(Sampler(p, 60, 0).drawn(kNothingAllowed), Error);
  EXPECT_THROW(Sampler(p, 60, 0).drawn(60), Error);
}

TEST(Sampler, NamesFieldAndRange) {
  const auto message = [](auto set) {
    SamplingParams p;
    set(p);
    try {
      p.validate(10);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
      return std::string(e.what());
    }
    return std::string("fine");
  };
  EXPECT_EQ(message([](auto&) {}), "fine");
  EXPECT_EQ(message([](auto& p) { p.temperature = -1; }), "temperature is -1; it must be in [0, 100]");
  EXPECT_EQ(message([](auto& p) { p.temperature = NAN; }), "temperature is nan; it must be in [0, 100]");
  EXPECT_EQ(message([](auto& p) { p.top_k = -2; }), "top_k is -2; it must be 0 (off) or more");
  EXPECT_EQ(message([](auto& p) { p.top_p = 0; }), "top_p is 0; it must be in (0, 1]");
  EXPECT_EQ(message([](auto& p) { p.min_p = 2; }), "min_p is 2; it must be in [0, 1]");
  EXPECT_EQ(message([](auto& p) { p.typical_p = 1.5f; }), "typical_p is 1.5; it must be in (0, 1]");
  EXPECT_EQ(message([](auto& p) { p.repetition_penalty = 0; }),
            "repetition_penalty is 0; it must be in (0, 100]");
  EXPECT_EQ(message([](auto& p) { p.presence_penalty = 3; }), "presence_penalty is 3; it must be in [-2, 2]");
  EXPECT_EQ(message([](auto& p) { p.frequency_penalty = -3; }),
            "frequency_penalty is -3; it must be in [-2, 2]");
  EXPECT_EQ(message([](auto& p) { p.penalty_window = -1; }),
            "penalty_window is -1; it must be 0 (all tokens) or more");
  EXPECT_EQ(message([](auto& p) { p.logprobs = 1001; }), "logprobs is 1001; it must be in [0, 1000]");
  EXPECT_EQ(message([](auto& p) { p.n = 0; }), "n is 0; it must be in [1, 1024]");
  EXPECT_EQ(message([](auto& p) {
              p.logit_bias = {{10, 1.0f}};
            }),
            "logit_bias names the token 10; the vocabulary has 10");
  EXPECT_EQ(message([](auto& p) {
              p.logit_bias = {{1, 101.0f}};
            }),
            "logit_bias of the token 1 is 101; it must be in [-100, 100]");
  EXPECT_EQ(message([](auto& p) {
              p.stop = {"a", ""};
            }),
            "stop has a string of 0 bytes; each must have 1 to 4096");
}

// Extremes: spreads that underflow, infinities, one token, temperatures at both ends.
TEST(Sampler, SurvivesExtremes) {
  for (const float temperature : {1e-45f, 1e-5f, 1.0f, 100.0f})
    for (const float top_p : {1.0f, 1e-6f}) {
      SamplingParams p;
      p.temperature = temperature;
      p.top_p = top_p;
      std::vector<float> logits = {-3e38f, 3e38f, -INFINITY, 0};
      EXPECT_EQ(Sampler(p, 4, 0).sample(logits), 1);
      logits = {0, INFINITY, INFINITY, 1};
      EXPECT_EQ(Sampler(p, 4, 0).sample(logits), 1);
      std::vector<float> one = {-5};
      EXPECT_EQ(Sampler(p, 1, 0).sample(one), 0);
    }
}

TEST(Sampler, IsFastOverALargeVocabulary) {
  const auto logits = random_logits(131072, 3, 3);
  std::vector<float> scratch(logits.size());
  const auto measure = [&](const char* what, auto set) {
    SamplingParams p;
    p.temperature = 0.8f;
    set(p);
    Sampler sampler(p, int32_t(logits.size()), 0);
    std::vector<double> times;
    for (int i = 0; i < 21; ++i) {
      scratch = logits;
      const auto start = std::chrono::steady_clock::now();
      sampler.sample(scratch);
      times.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
    std::nth_element(times.begin(), times.begin() + 10, times.end());
    std::printf("sampling from 131072 logits, %s: median %.3f ms\n", what, times[10]);
    return times[10];
  };
  measure("greedy", [](auto& p) { p.temperature = 0; });
  EXPECT_LT(measure("top_k 40, top_p 0.95", [](auto& p) { p.top_k = 40, p.top_p = 0.95f; }),
            20);  // 1 ms; slack for sanitizers
  measure("top_p 0.95", [](auto& p) { p.top_p = 0.95f; });
  measure("min_p 0.05", [](auto& p) { p.min_p = 0.05f; });
  measure("typical_p 0.95", [](auto& p) { p.typical_p = 0.95f; });
  measure("temperature alone", [](auto&) {});
  measure("logprobs 20, top_k 40", [](auto& p) { p.logprobs = 20, p.top_k = 40; });
}

// What stopping means, on the whole text: the stop string complete first ends it, the longest of those.
StopMatch stop_reference(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end)
    for (size_t start = 0; start < end; ++start)
      for (const auto& stop : stops)
        if (text.compare(start, end - start, stop) == 0) return {text.substr(0, start), true};
  return {text, false};
}

TEST(StopMatcher, DoesNotDependOnHowTheTextWasCut) {
  const std::vector<std::vector<std::string>> sets = {
      {"</s>"}, {"ab", "abc", "b"}, {"aab"}, {"aaa", "ab"}, {"\n\nUser:", "\n\n"}, {"é", "ég"}, {}};
  const std::vector<std::string> texts = {"hello </s> x", "xabcx", "aaab", "aaaaab", "a\n\nUser: b",
                                          "caféga",       "</</s", "",     "aabaab", "no stop here"};
  for (const auto& stops : sets)
    for (const auto& text : texts) {
      const auto want = stop_reference(stops, text);
      for (uint32_t cuts = 0; cuts < 1u << (text.empty() ? 0 : text.size() - 1); ++cuts) {
        StopMatcher matcher(stops);
        std::string shown, piece;
        bool stopped = false;
        for (size_t i = 0; i < text.size(); ++i) {
          piece += text[i];
          if (i + 1 < text.size() && !(cuts >> i & 1)) continue;
          const auto match = matcher.add(piece);
          piece.clear();
          shown += match.text;
          stopped |= match.stopped;
          // Nothing is held back that could not still become a stop string.
          if (!stopped && i + 1 < text.size()) {
            const std::string held = text.substr(shown.size(), i + 1 - shown.size());
            const bool needed = held.empty() || std::any_of(stops.begin(), stops.end(), [&](const auto& s) {
                                  return s.size() > held.size() && s.starts_with(held);
                                });
            ASSERT_TRUE(needed) << held;
          }
        }
        shown += matcher.finish();
        ASSERT_EQ(shown, want.text) << text << " cut as " << cuts;
        ASSERT_EQ(stopped, want.stopped) << text << " cut as " << cuts;
      }
    }
}

}  // namespace
}  // namespace cairn::text
