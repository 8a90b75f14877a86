// Properties of every policy, and what each promises of its own, in the simulator.
#include "engine/scheduling/simulate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <sstream>

#include "base/checked.h"
#include "base/error.h"
#include "engine/scheduling/continuous.h"
#include "engine/scheduling/first_come.h"

namespace cairn::engine {
namespace {

double linear_machine(const StepShape& s) {
  return 4e-3 + 1e-4 * double(s.decode_rows) + 5e-4 * double(s.prompt_tokens) + 2e-7 * double(s.context) +
         1e-7 * double(s.prompt_pairs);
}

constexpr const char* kNames[] = {"first-come", "continuous", "flover"};

std::vector<Arrival> random_load(std::mt19937_64& random, size_t count, int64_t most_tokens, double span) {
  std::vector<Arrival> load(count);
  for (auto& a : load) {
    a.at = span * double(random() % 1000) / 1000;
    a.client = random() % 4;
    a.priority = int(random() % 3) - 1;
    a.prompt_tokens = 1 + int64_t(random() % uint64_t(most_tokens - 1));
    a.answer_tokens = int64_t(random() % uint64_t(most_tokens - a.prompt_tokens + 1));
    if (random() % 2) a.max_tokens = most_tokens;
  }
  std::sort(load.begin(), load.end(), [](auto& a, auto& b) { return a.at < b.at; });
  return load;
}

void expect_all_answered(const SimulateResult& result, const std::vector<Arrival>& load) {
  ASSERT_EQ(result.broken, "");
  int64_t prompts = 0, answers = 0;
  for (size_t i = 0; i < load.size(); ++i) {
    const auto& r = result.requests[i];
    EXPECT_TRUE(r.ended) << i;
    EXPECT_EQ(r.answered, load[i].answer_tokens) << i;
    // The last token is told and never read.
    EXPECT_GE(r.computed + r.reused, load[i].prompt_tokens + std::max<int64_t>(0, load[i].answer_tokens - 1))
        << i;
    prompts += load[i].prompt_tokens - (result.requests[i].preemptions ? 0 : r.reused);
    answers += std::max<int64_t>(0, load[i].answer_tokens - 1);
  }
  EXPECT_EQ(result.answer_tokens, answers);
  if (result.preemptions == 0) {
    EXPECT_EQ(result.recomputed, 0);
  }
  EXPECT_LE(result.prompt_tokens, prompts);
}

// The simulator itself stops at a token given twice, a page or a row too many, and at a standstill.
TEST(Policies, KeepEveryLimitAndEndEveryRequest) {
  for (const char* name : kNames)
    for (uint64_t seed = 1; seed <= 60; ++seed) {
      SCOPED_TRACE(::testing::Message() << name << " " << seed);
      std::mt19937_64 random(seed);
      SimulateOptions o;
      o.page_tokens = 1 << random() % 6;
      const int64_t most = 40 + int64_t(random() % 400);
      o.pages = ceil_div(most, o.page_tokens) * int64_t(1 + random() % 6);
      o.step_tokens = 1 + int64_t(random() % 100);
      o.step_sequences = 1 + int64_t(random() % 20);
      o.max_running = 1 + int64_t(random() % 30);
      const auto load = random_load(random, 60, most, double(random() % 20));
      const auto policy = make_policy(
          name, {.max_token_gap = 0.002 * double(1 + random() % 50), .ageing = double(random() % 5)});
      expect_all_answered(simulate(*policy, linear_machine, load, o), load);
    }
}

TEST(Policies, FindNothingToRecomputeWhenPagesSuffice) {
  for (const char* name : kNames) {
    std::mt19937_64 random(7);
    const auto load = random_load(random, 100, 500, 10);
    const auto result = simulate(*make_policy(name, {}), linear_machine, load, {.pages = 4000});
    expect_all_answered(result, load);
    EXPECT_EQ(result.preemptions, 0) << name;
    EXPECT_EQ(result.recomputed, 0) << name;
  }
}

TEST(Policies, AreMadeByName) {
  for (const char* name : kNames) EXPECT_EQ(make_policy(name, {})->name(), name);
  try {
    make_policy("fastest", {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("first-come, continuous, flover"), std::string::npos) << e.what();
  }
  EXPECT_THROW(make_policy("continuous", {.max_token_gap = 0}), Error);
  EXPECT_THROW(make_policy("continuous", {.ageing = -1}), Error);
}

std::vector<Arrival> at_once(size_t count, Arrival a) { return std::vector<Arrival>(count, a); }

std::vector<Arrival> merge(std::vector<Arrival> a, const std::vector<Arrival>& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::stable_sort(a.begin(), a.end(), [](auto& x, auto& y) { return x.at < y.at; });
  return a;
}

// Answers grow to ten times what is there: 40 of up to 1,000 tokens over room for 4,000.
TEST(Continuous, RecomputesLittleUnderPagePressure) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<Arrival> load(40);
    for (auto& a : load) {
      a.prompt_tokens = 20 + int64_t(random() % 100);
      a.answer_tokens = 200 + int64_t(random() % 680);
      a.max_tokens = 1000;
    }
    const auto result = simulate(*make_policy("continuous", {}), linear_machine, load, {.pages = 125});
    expect_all_answered(result, load);
    const int64_t tokens = result.prompt_tokens + result.answer_tokens;
    EXPECT_GT(result.preemptions, 0);
    EXPECT_LT(result.recomputed, tokens / 3) << tokens;
    for (const auto& r : result.requests) EXPECT_LE(r.preemptions, 6);
    EXPECT_GT(result.pages_mean, 0.65 * 125);  // and the pool is used, the last ones' end included
  }
}

// Weighted as the counters weigh: what each client got by the end.
std::map<uint64_t, double> served(const SimulateResult& result, const std::vector<Arrival>& load) {
  std::map<uint64_t, double> sums;
  for (size_t i = 0; i < load.size(); ++i) {
    const auto& r = result.requests[i];
    sums[load[i].client] += double(std::min(r.computed, load[i].prompt_tokens)) + 2 * double(r.answered);
  }
  return sums;
}

TEST(Continuous, GivesAClientItsShareThoughAnotherFloods) {
  // 2,000 requests of one client, and another that came later and always has enough to do.
  const auto load = merge(at_once(2000, {.at = 0, .client = 1, .prompt_tokens = 300, .answer_tokens = 60}),
                          at_once(200, {.at = 1, .client = 2, .prompt_tokens = 100, .answer_tokens = 120}));
  const SimulateOptions o{.pages = 200, .max_running = 16, .until = 30};
  auto got = served(simulate(*make_policy("continuous", {}), linear_machine, load, o), load);
  EXPECT_GT(got[2], 0.45 * (got[1] + got[2]));
  EXPECT_LT(got[2], 0.55 * (got[1] + got[2]));
  auto unfair = served(simulate(*make_policy("first-come", {}), linear_machine, load, o), load);
  EXPECT_LT(unfair[2], 0.01 * unfair[1]);
}

TEST(Continuous, AnswersALightClientSoonThoughAnotherFloods) {
  std::vector<Arrival> light;
  for (int i = 1; i <= 20; ++i)
    light.push_back({.at = double(i), .client = 2, .prompt_tokens = 100, .answer_tokens = 10});
  const auto load = merge(at_once(3000, {.client = 1, .prompt_tokens = 300, .answer_tokens = 30}), light);
  const SimulateOptions o{.pages = 400, .max_running = 16, .until = 25};
  const auto result = simulate(*make_policy("continuous", {}), linear_machine, load, o);
  ASSERT_EQ(result.broken, "");
  for (size_t i = 0; i < load.size(); ++i)
    if (load[i].client == 2) {
      ASSERT_TRUE(result.requests[i].ended) << i;
      EXPECT_LT(result.requests[i].first - load[i].at, 1.0)
          << i;  // a running one must end first, and its prompt is read
    }
}

// An hour away saves nothing up: the client that comes back shares from then on, and does not catch up.
TEST(Continuous, LiftsAClientThatWasIdle) {
  auto load = merge(at_once(20, {.at = 0, .client = 1, .prompt_tokens = 50, .answer_tokens = 20}),
                    at_once(1, {.at = 0, .client = 2, .prompt_tokens = 50, .answer_tokens = 20}));
  load = merge(load, at_once(3000, {.at = 0, .client = 1, .prompt_tokens = 300, .answer_tokens = 60}));
  load = merge(load, at_once(1000, {.at = 60, .client = 2, .prompt_tokens = 300, .answer_tokens = 60}));
  SimulateOptions o{.pages = 300, .max_running = 16, .until = 60};
  const auto before = served(simulate(*make_policy("continuous", {}), linear_machine, load, o), load);
  o.until = 70;
  const auto after = served(simulate(*make_policy("continuous", {}), linear_machine, load, o), load);
  const double first = after.at(1) - before.at(1), second = after.at(2) - before.at(2);
  EXPECT_GT(first, 0.7 * second);  // client 1 still has its running ones at the start
  EXPECT_GT(second, 0.7 * first);
}

TEST(Continuous, ServesHigherPrioritiesFirst) {
  const auto load =
      merge(at_once(300, {.at = 0, .client = 1, .prompt_tokens = 200, .answer_tokens = 50}),
            at_once(20, {.at = 2, .client = 2, .priority = 5, .prompt_tokens = 200, .answer_tokens = 50}));
  // One that waits preempts, so that it starts at once though everything is taken.
  const auto result = simulate(*make_policy("continuous", {.ageing = 1000}), linear_machine, load,
                               {.pages = 80, .max_running = 8, .until = 30});
  ASSERT_EQ(result.broken, "");
  double high_last = 0;
  for (size_t i = 0; i < load.size(); ++i)
    if (load[i].priority == 5) {
      ASSERT_TRUE(result.requests[i].ended);
      EXPECT_EQ(result.requests[i].preemptions, 0);
      high_last = std::max(high_last, result.requests[i].last);
    }
  // Nothing of the low ones began between the arrival of the high ones and the end of the last of them.
  for (size_t i = 0; i < load.size(); ++i)
    if (load[i].priority == 0 && result.requests[i].first > 0) {
      EXPECT_TRUE(result.requests[i].first < 2.5 || result.requests[i].first > high_last - 0.7)
          << result.requests[i].first << " " << high_last;
    }
}

TEST(Continuous, LetsNothingStarve) {
  // More of priority 1 than the machine can do, for ever; priority 0 gets one admission per `ageing`.
  std::vector<Arrival> high;
  for (int i = 0; i < 1200; ++i)
    high.push_back({.at = 0.05 * i, .client = 1, .priority = 1, .prompt_tokens = 200, .answer_tokens = 50});
  const auto load =
      merge(at_once(10, {.at = 1, .client = 2, .prompt_tokens = 200, .answer_tokens = 20}), high);
  const auto result = simulate(*make_policy("continuous", {.ageing = 3}), linear_machine, load,
                               {.pages = 80, .max_running = 8, .until = 60});
  ASSERT_EQ(result.broken, "");
  int low = 0;
  for (size_t i = 0; i < load.size(); ++i) low += load[i].priority == 0 && result.requests[i].ended;
  EXPECT_EQ(low, 10);
  const auto strict = simulate(*make_policy("continuous", {.ageing = 1000}), linear_machine, load,
                               {.pages = 80, .max_running = 8, .until = 60});
  for (size_t i = 0; i < load.size(); ++i) EXPECT_FALSE(load[i].priority == 0 && strict.requests[i].ended);
}

// The bar: while prompts of 16K tokens arrive, no answer waits longer than 1.5 budgets. The machine's times
// are what the model of them can express; that real ones are, is the bench's to show.
TEST(Continuous, BoundsTheGapWhileLongPromptsArrive) {
  for (const double budget : {0.05, 0.1, 0.3}) {
    auto load = at_once(8, {.at = 0, .client = 1, .prompt_tokens = 100, .answer_tokens = 2000});
    for (int i = 0; i < 4; ++i)
      load.push_back({.at = 1.0 + 2 * i, .client = 2, .prompt_tokens = 16384, .answer_tokens = 20});
    const SimulateOptions o{.pages = 4096, .step_tokens = 2048};
    const auto result =
        simulate(*make_policy("continuous", {.max_token_gap = budget}), linear_machine, load, o);
    expect_all_answered(result, load);
    EXPECT_LE(result.worst_gap_beside_prompts, 1.5 * budget);
    EXPECT_GT(result.worst_gap_beside_prompts, 0.5 * budget);  // and the time is used
    // Without a budget, the same prompts make answers wait as long as a step of 2,048 tokens takes.
    const auto unbounded = simulate(*make_policy("first-come", {}), linear_machine, load, o);
    EXPECT_GT(unbounded.worst_gap_beside_prompts, 1.0);
  }
}

TEST(Continuous, ReadsPromptsThoughAnswersAloneAreOverBudget) {
  auto load = at_once(32, {.at = 0, .client = 1, .prompt_tokens = 10, .answer_tokens = 500});
  load.push_back({.at = 1, .client = 2, .prompt_tokens = 800, .answer_tokens = 1});
  const auto result =
      simulate(*make_policy("continuous", {.max_token_gap = 0.001}), linear_machine, load, {});
  expect_all_answered(result, load);
  EXPECT_LT(result.requests.back().first, 4);  // what a quarter of the answers' time reads
}

TEST(Continuous, ReadsPromptsThoughAnswersFillTheStep) {
  auto load = at_once(8, {.at = 0, .client = 1, .prompt_tokens = 10, .answer_tokens = 1000});
  load.push_back({.at = 1, .client = 2, .prompt_tokens = 800, .answer_tokens = 1});
  const auto result = simulate(*make_policy("continuous", {}), linear_machine, load, {.step_sequences = 4});
  expect_all_answered(result, load);
  EXPECT_LT(result.requests.back().first, 3);
}

// Two prompts that fit one after the other: the pages that the first will need are not there for the second.
TEST(Continuous, AdmitsNoPromptIntoPagesThatAreSpokenFor) {
  const auto load = merge(at_once(1, {.client = 1, .prompt_tokens = 1900, .answer_tokens = 10}),
                          at_once(1, {.client = 2, .prompt_tokens = 1900, .answer_tokens = 10}));
  const auto result =
      simulate(*make_policy("continuous", {}), linear_machine, load, {.pages = 100, .step_tokens = 256});
  expect_all_answered(result, load);
  EXPECT_EQ(result.preemptions, 0);
}

// Half read when a stream of higher prompts begins that leaves no time for it.
TEST(Continuous, GoesOnWithAPromptThatHigherOnesPassOver) {
  std::vector<Arrival> load{{.at = 0, .client = 1, .prompt_tokens = 4000, .answer_tokens = 1}};
  for (int i = 0; i < 1500; ++i)
    load.push_back(
        {.at = 0.3 + 0.02 * i, .client = 2, .priority = 1, .prompt_tokens = 100, .answer_tokens = 4});
  const SimulateOptions o{.pages = 4000, .until = 25};
  EXPECT_LT(simulate(*make_policy("continuous", {.ageing = 5}), linear_machine, load, o).requests[0].last,
            15);
  EXPECT_GT(simulate(*make_policy("continuous", {.ageing = 5}), linear_machine, load, o).requests[0].last, 5);
  EXPECT_EQ(simulate(*make_policy("continuous", {.ageing = 99}), linear_machine, load, o).requests[0].last,
            0);
}

TEST(FloverPolicy, PutsNoMoreThanAPieceOfAPromptBetweenTwoTurns) {
  auto load = at_once(8, {.at = 0, .client = 1, .prompt_tokens = 20, .answer_tokens = 400});
  for (int i = 0; i < 4; ++i)
    load.push_back({.at = 1.0 + i, .client = 2, .prompt_tokens = 512, .answer_tokens = 20});
  const auto result = simulate(*make_policy("flover", {}), linear_machine, load, {.pages = 200});
  expect_all_answered(result, load);
  EXPECT_EQ(result.preemptions, 0);
  const double piece = linear_machine({0, 64, 512, 64 * 512}), turn = linear_machine({12, 0, 12 * 500, 0});
  EXPECT_LT(result.gap.largest, 1.01 * (piece + turn));
  EXPECT_GT(result.gap.largest, piece);
}

// Answers that may grow to 1,000 tokens over a pool for 4,000: four at a time, however short they turn out.
TEST(FloverPolicy, NeverPreempts) {
  std::mt19937_64 random(1);
  std::vector<Arrival> load(40);
  for (auto& a : load)
    a.prompt_tokens = 20, a.answer_tokens = 1 + int64_t(random() % 980), a.max_tokens = 1000;
  const auto result = simulate(*make_policy("flover", {}), linear_machine, load, {.pages = 128});
  expect_all_answered(result, load);
  EXPECT_EQ(result.preemptions, 0);
}

TEST(Simulate, ReusesWhatAnIdealPrefixCacheHolds) {
  // Three turns of a chat: each prompt begins with the one before.
  std::vector<Arrival> load;
  for (int64_t turn = 0; turn < 3; ++turn) {
    Arrival a{.at = double(20 * turn), .prompt_tokens = 1024 * (turn + 1), .answer_tokens = 5};
    for (int64_t b = 0; b < 2 * (turn + 1); ++b) a.content.push_back(b);
    load.push_back(a);
  }
  const SimulateOptions o{.ideal_prefix_cache = true};
  for (const char* name : kNames) {
    const auto result = simulate(*make_policy(name, {}), linear_machine, load, o);
    expect_all_answered(result, load);
    EXPECT_EQ(result.requests[0].reused, 0);
    EXPECT_EQ(result.requests[1].reused, 1024);
    EXPECT_EQ(result.requests[2].reused, 2048);
    EXPECT_EQ(result.prompt_tokens, 3 * 1024);
  }
}

TEST(Simulate, NamesTheRuleAPolicyBreaks) {
  struct Twice : Policy {
    std::string_view name() const override { return "twice"; }
    void plan(const SchedulerState& state, StepPlan& plan) override {
      FirstCome().plan(state, plan);
      if (!plan.shares.empty()) plan.shares.push_back(plan.shares.front());
    }
  } twice;
  struct Greedy : Policy {
    std::string_view name() const override { return "greedy"; }
    void plan(const SchedulerState& state, StepPlan& plan) override {
      for (const auto& s : state.waiting) plan.shares.push_back({s.id, s.left()});
      for (const auto& s : state.running) plan.shares.push_back({s.id, s.left()});
    }
  } greedy;
  struct Idle : Policy {
    std::string_view name() const override { return "idle"; }
    void plan(const SchedulerState&, StepPlan&) override {}
  } idle;
  const auto load = at_once(10, {.prompt_tokens = 100, .answer_tokens = 10});
  const auto broken = [&](Policy& p, const SimulateOptions& o) {
    return simulate(p, linear_machine, load, o).broken;
  };
  EXPECT_NE(broken(twice, {}).find("has two"), std::string::npos);
  EXPECT_NE(broken(greedy, {.step_tokens = 64}).find("a step of 1000 tokens, 64 fit"), std::string::npos);
  EXPECT_NE(broken(greedy, {.pages = 8, .step_tokens = 5000}).find("more pages"), std::string::npos);
  EXPECT_NE(broken(greedy, {.step_tokens = 5000, .step_sequences = 4}).find("of 10 sequences"),
            std::string::npos);
  EXPECT_NE(broken(idle, {}).find("nothing of 10 is admitted"), std::string::npos);
}

TEST(Simulate, ReadsRecordedSteps) {
  std::istringstream in("# a machine\n\n3 0 300 0 0.0051\r\n0 128 128 8256 0.07\n");
  const auto steps = read_steps(in, "steps.txt");
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(to_line(steps[0]), "3 0 300 0 0.0051");
  EXPECT_EQ(steps[1].shape.prompt_pairs, 8256);
  const Machine machine = recorded_machine(steps);
  EXPECT_NEAR(machine(steps[0].shape), 0.0051, 1e-4);
  EXPECT_NEAR(machine(steps[1].shape), 0.07, 1e-3);
  EXPECT_THROW(recorded_machine({}), Error);
  for (const char* bad : {"1 2 3", "1 2 3 4 five", "1 2 3 4 0", "-1 2 3 4 1", "1 2 3 4 5 6", "1 2 3 4 nan"}) {
    std::istringstream text(std::string("1 0 1 0 1\n") + bad);
    try {
      read_steps(text, "steps.txt");
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("steps.txt, line 2"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace cairn::engine
