#include "engine/scheduling/step_time.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace cairn::engine {
namespace {

struct Machine {
  double speed = 1;
  double seconds(const StepShape& s) const {
    return speed * (4e-3 + 1e-4 * double(s.decode_rows) + 5e-4 * double(s.prompt_tokens) +
                    2e-7 * double(s.context) + 1e-7 * double(s.prompt_pairs));
  }
};

StepShape decode(int64_t rows, int64_t each) { return {rows, 0, rows * each, 0}; }

StepShape with_prompt(StepShape s, int64_t from, int64_t tokens) {
  s.prompt_tokens += tokens;
  s.context += from + tokens;
  s.prompt_pairs += from * tokens + tokens * (tokens + 1) / 2;
  return s;
}

StepShape random_step(std::mt19937_64& random) {
  auto s = decode(int64_t(random() % 33), int64_t(16 + random() % 2000));
  if (s.decode_rows == 0 || random() % 3 == 0)
    s = with_prompt(s, int64_t(random() % 8000), int64_t(1 + random() % 256));
  return s;
}

double worst_error(const StepTimeModel& model, const Machine& machine, uint64_t seed) {
  std::mt19937_64 random(seed);
  double worst = 0;
  for (int i = 0; i < 500; ++i) {
    const auto s = random_step(random);
    worst = std::max(worst, std::abs(std::log(model.predict(s) / machine.seconds(s))));
  }
  return worst;
}

TEST(StepTime, LearnsALinearMachine) {
  StepTimeModel model;
  const Machine machine;
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    const auto s = random_step(random);
    model.add(s, machine.seconds(s));
  }
  EXPECT_LT(worst_error(model, machine, 2), 0.01);
}

// A tenth of noise, and one step in twenty that another program held up threefold to twentyfold.
TEST(StepTime, IsNotMisledByDisturbedSteps) {
  StepTimeModel model;
  const Machine machine;
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise(0, 0.1);
  double worst = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto s = random_step(random);
    double seconds = machine.seconds(s) * std::exp(noise(random));
    if (random() % 20 == 0) seconds *= double(3 + random() % 18);
    model.add(s, seconds);
    if (i > 200 && i % 100 == 0) worst = std::max(worst, worst_error(model, machine, 4));
  }
  EXPECT_LT(worst, 0.3);  // at every time, for the worst of 500 shapes
  EXPECT_LT(worst_error(model, machine, 4), 0.2);
}

// Only decode steps run while the machine becomes slower; what prompts cost follows.
TEST(StepTime, FollowsTheMachineForSizesItDoesNotSee) {
  StepTimeModel model;
  Machine machine;
  std::mt19937_64 random(5);
  for (int i = 0; i < 200; ++i) {
    const auto s = random_step(random);
    model.add(s, machine.seconds(s));
  }
  for (const double speed : {2.0, 5.0, 1.0}) {
    machine.speed = speed;
    for (int i = 0; i < 80; ++i) {
      const auto s = decode(8, 500 + i);
      model.add(s, machine.seconds(s));
    }
    const auto prompt = with_prompt(decode(8, 600), 1000, 200);
    EXPECT_NEAR(model.predict(prompt) / machine.seconds(prompt), 1, 0.2) << speed;
  }
}

TEST(StepTime, RemembersPromptsThroughLongDecoding) {
  StepTimeModel model;
  const Machine machine;
  std::mt19937_64 random(6);
  for (int i = 0; i < 100; ++i) {
    const auto s = random_step(random);
    model.add(s, machine.seconds(s));
  }
  for (int i = 0; i < 20000; ++i)
    model.add(decode(4, 100 + i % 4000), machine.seconds(decode(4, 100 + i % 4000)));
  const auto prompt = with_prompt(decode(4, 600), 3000, 128);
  EXPECT_NEAR(model.predict(prompt) / machine.seconds(prompt), 1, 0.05);
}

TEST(StepTime, IsCautiousAboutWhatItHasNotSeen) {
  StepTimeModel model;
  const Machine machine;
  EXPECT_EQ(model.predict(decode(1, 10)), 0);
  const auto big = with_prompt(decode(4, 100), 0, 512);
  EXPECT_EQ(model.upper(big), std::numeric_limits<double>::infinity());
  for (int i = 0; i < 50; ++i) model.add(decode(4, 100 + i), machine.seconds(decode(4, 100 + i)));
  EXPECT_EQ(model.upper(big), std::numeric_limits<double>::infinity());
  EXPECT_LT(model.upper(with_prompt(decode(4, 100), 0, StepTimeModel::kFirstTokens)), 1);
  // Each measured size makes twice it known, and never too small by much.
  for (int64_t tokens = StepTimeModel::kFirstTokens; tokens < 512; tokens *= 2) {
    const auto s = with_prompt(decode(4, 150), 0, tokens);
    model.add(s, machine.seconds(s));
    const auto twice = with_prompt(decode(4, 150), 0, 2 * tokens);
    EXPECT_GT(model.upper(twice), 0.6 * machine.seconds(twice)) << tokens;
    EXPECT_LT(model.upper(twice), 3 * machine.seconds(twice)) << tokens;
  }
  EXPECT_GE(model.upper(big), machine.seconds(big));
}

TEST(StepTime, IgnoresTimesThatCannotBe) {
  StepTimeModel model;
  for (const double seconds : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()})
    model.add(decode(1, 10), seconds);
  EXPECT_EQ(model.steps(), 0);
  model.add(decode(1, 10), 0.01);
  EXPECT_NEAR(model.predict(decode(1, 10)), 0.01, 1e-6);
}

}  // namespace
}  // namespace cairn::engine
