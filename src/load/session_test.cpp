#include "load/session.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "load/prompts.h"
#include "load/random.h"
#include "load/reuse.h"
#include "load/samples.h"

namespace cairn::load {
namespace {

double mean_of(const std::string& text) {
  const auto length = Length::parse(text, "-p");
  Random random(1);
  double sum = 0;
  for (int i = 0; i < 20000; ++i) sum += double(length.draw(random));
  return sum / 20000;
}

TEST(Length, DrawsWhatItSays) {
  EXPECT_EQ(mean_of("200"), 200);
  EXPECT_NEAR(mean_of("100-300"), 200, 2);
  EXPECT_NEAR(mean_of("normal:200,20"), 200, 2);
  EXPECT_NEAR(mean_of("exponential:200"), 200, 6);
  EXPECT_NEAR(mean_of("lognormal:200,0.5"), 200 * std::exp(0.125), 5);
  for (const char* bad : {"", "0", "-5", "a", "5-", "300-100", "normal:5", "normal:a,b", "gamma:1,2", "nan",
                          "inf", "1e99", "exponential:1,2", "0.5"})
    EXPECT_THROW(Length::parse(bad, "-p"), Error) << bad;
}

TEST(Sessions, SameSeedSameLoadAndAnotherSeedAnother) {
  SyntheticOptions options;
  options.sessions = 50;
  options.prompt = Length::parse("10-500", "");
  options.shared_prefix = 100;
  options.groups = 4;
  options.turns = 2;
  options.rate = 10;
  const auto list = [&] {
    std::vector<Session> all;
    for (auto source = synthetic_sessions(options); auto session = source->next();) all.push_back(*session);
    return all;
  };
  const auto a = list(), b = list();
  options.seed = 1;
  const auto c = list();
  ASSERT_EQ(a.size(), 50u);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].at, b[i].at);
    EXPECT_EQ(a[i].turns[1].prompt, b[i].turns[1].prompt);
    EXPECT_NE(a[i].turns[1].prompt[0].key, c[i].turns[1].prompt[0].key);
    EXPECT_EQ(a[i].system[0].tokens, 100);
  }
}

TEST(Sessions, ArrivalsHaveTheirRateAndBurstiness) {
  const auto gaps = [](double burstiness) {
    SyntheticOptions options;
    options.sessions = 20000;
    options.rate = 50;
    options.burstiness = burstiness;
    Samples samples;
    double before = 0, square = 0;
    for (auto source = synthetic_sessions(options); auto session = source->next();) {
      samples.add(session->at - before);
      square += std::pow(session->at - before, 2);
      before = session->at;
    }
    const double mean = samples.mean();
    return std::pair(mean, std::sqrt(square / 20000 - mean * mean) / mean);
  };
  EXPECT_NEAR(gaps(1).first, 0.02, 5e-4);
  EXPECT_NEAR(gaps(1).second, 1, 0.03);
  EXPECT_NEAR(gaps(0.25).first, 0.02, 1e-3);
  EXPECT_NEAR(gaps(0.25).second, 2, 0.08);  // the variation of a gamma distribution is 1 / sqrt(shape)
  EXPECT_NEAR(gaps(std::numeric_limits<double>::infinity()).second, 0, 0.02);
}

TEST(Prompts, EqualKeysGiveEqualTokensAndTheShorterIsAPrefix) {
  const auto alphabet = uncalibrated_alphabet();
  std::string a, b, c;
  append_text({1, 100}, alphabet, a);
  append_text({1, 60}, alphabet, b);
  append_text({2, 100}, alphabet, c);
  EXPECT_EQ(std::count(a.begin(), a.end(), ' '), 100);
  EXPECT_EQ(a.substr(0, b.size()), b);
  EXPECT_NE(a, c);
}

TEST(Samples, QuantilesAreNumpys) {
  Samples samples;
  for (const double value : {4., 1., 3., 2.}) samples.add(value);
  EXPECT_EQ(samples.quantile(0.5), 2.5);
  EXPECT_EQ(samples.quantile(0), 1);
  EXPECT_EQ(samples.max(), 4);
  EXPECT_NEAR(samples.quantile(0.9), 3.7, 1e-6);
  samples.add(10);
  EXPECT_EQ(samples.quantile(0.5), 3);
  EXPECT_EQ(Samples().quantile(0.5), 0);
}

class Listed final : public SessionSource {
 public:
  explicit Listed(std::vector<std::vector<Part>> prompts) : prompts_(std::move(prompts)) {}
  std::optional<Session> next() override {
    if (at_ == prompts_.size()) return std::nullopt;
    Session session;
    session.key = at_;
    session.turns.push_back({prompts_[at_++], 10, 0});
    return session;
  }

 private:
  std::vector<std::vector<Part>> prompts_;
  size_t at_ = 0;
};

TEST(Reuse, CountsWholePagesOfWhatCameBefore) {
  Listed source({{{1, 64}, {2, 64}},            // nothing before it
                 {{1, 64}, {2, 64}},            // all but the last token: 127 -> 7 pages of 16
                 {{1, 64}, {3, 64}},            // the first part: 64
                 {{2, 64}, {1, 64}},            // nothing: another beginning
                 {{1, 40}},                     // a prefix of a part: 39 -> 2 pages
                 {{1, 64}, {2, 30}, {4, 9}}});  // 94 -> 5 pages; after the shorter part nothing is known
  const auto reuse = ideal_reuse(source, 16);
  EXPECT_EQ(reuse.requests, 6);
  EXPECT_EQ(reuse.prompt_tokens, 128 * 4 + 40 + 103);
  EXPECT_EQ(reuse.reusable_tokens, 112 + 64 + 32 + 80);
  EXPECT_EQ(reuse.reusable_parts, 2 + 1 + 1 + 2);
}

TEST(Reuse, TurnsReuseTheConversationSoFar) {
  SyntheticOptions options;
  options.sessions = 10;
  options.prompt = Length(100);
  options.answer = Length(20);
  options.turns = 3;
  options.shared_prefix = 50;
  auto source = synthetic_sessions(options);
  const auto reuse = ideal_reuse(*source, 1);
  // 150; then 150 + 20 of 270; then 270 + 20 of 390; nine times the shared 50 in first turns.
  EXPECT_EQ(reuse.prompt_tokens, 10 * (150 + 270 + 390));
  EXPECT_EQ(reuse.reusable_tokens, 10 * (170 + 290) + 9 * 50);
}

}  // namespace
}  // namespace cairn::load
