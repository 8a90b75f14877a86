// Requests that come at random join a loop that never stops, and each gets the tokens that it gets alone.
#include "engine/scheduling/flover_testing.h"

namespace cairn::engine::testing {
namespace {

TEST(Flover, AnswersAsAloneWhateverJoinsAndMoves) {  // the slow test does so with 64 and every option
  const auto requests = model().requests(20, 0.05);
  const auto stats = run(requests, options(Prefill::aside, Shuffle::always, true));
  EXPECT_LT(stats.turns, stats.rows);
  run(requests, options(Prefill::between, Shuffle::never, false));
}

TEST(Flover, RefusesWhatCannotRun) {
  Engine engine(models::open_model(kModel), engine_options());
  const auto message = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  FloverOptions many = options(Prefill::between, Shuffle::never, false);
  many.slots = 13, many.slot_tokens = 64;
  EXPECT_NE(message([&] { Flover(engine, many); }).find("13 slots need steps of as many rows"),
            std::string::npos);
  FloverOptions o = options(Prefill::between, Shuffle::never, false);
  o.most_waiting = 5;
  Flover flover(engine, o);
  FloverRequest r;
  r.prompt.assign(90, 5), r.max_tokens = 7;
  EXPECT_NE(message([&] { flover.submit(r); }).find("together 97; a slot holds 96"), std::string::npos);
  r.max_tokens = INT64_MAX;
  EXPECT_NE(message([&] { flover.submit(r); }).find("a slot holds 96"), std::string::npos);
  r.max_tokens = 0;
  EXPECT_NE(message([&] { flover.submit(r); }), "");
  r.max_tokens = 1, r.prompt = {-1};
  EXPECT_NE(message([&] { flover.submit(r); }).find("outside the vocabulary"), std::string::npos);

  // Five wait at most; the next is refused.
  r.prompt.assign(20, 5), r.max_tokens = 70;
  std::vector<Flover::Id> ids;
  std::string refused;
  while (refused.empty()) refused = message([&] { ids.push_back(flover.submit(r)); });
  EXPECT_NE(refused.find("5 requests wait for 12 slots"), std::string::npos);
  for (const auto id : ids) EXPECT_LE(flover.position(id).value_or(0), 4u);  // it moves up while we look
  EXPECT_FALSE(flover.position(12345));
  flover.drain();
}

TEST(Flover, FreesTheSlotOfAClientThatIsGone) {
  for (const Prefill prefill : {Prefill::aside, Prefill::between}) {
    Engine engine(models::open_model(kModel), engine_options());
    FloverOptions o = options(prefill, Shuffle::always, true);
    o.prefill_piece = 1;
    Flover flover(engine, o);
    std::atomic<int> cancelled{0}, ended{0}, tokens_after{0};
    std::atomic<bool> gone{false};
    std::vector<Flover::Id> ids;
    for (int i = 0; i < 30; ++i) {  // in the queue, in their prompts and in their answers
      FloverRequest r;
      r.prompt.assign(20, 7), r.max_tokens = 76;
      r.on_token = [&](int32_t) { tokens_after += gone; };
      r.on_end = [&](Finish f, const std::string&) { ++ended, cancelled += f == Finish::cancelled; };
      ids.push_back(flover.submit(std::move(r)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    for (const auto id : ids) flover.cancel(id);
    flover.cancel(12345);
    gone = true;
    flover.drain();
    EXPECT_EQ(ended, 30);
    EXPECT_GT(cancelled, 15);
    EXPECT_LE(tokens_after, 12);  // at most the turn that was running
    EXPECT_EQ(flover.stats().live, 0);
  }
}

TEST(Flover, CancelsWhatIsThereWhenItEnds) {
  Engine engine(models::open_model(kModel), engine_options());
  std::atomic<int> ended{0};
  {
    Flover flover(engine, options(Prefill::aside, Shuffle::always, true));
    for (int i = 0; i < 40; ++i) {
      FloverRequest r;
      r.prompt.assign(20, 7), r.max_tokens = 76;
      r.on_end = [&](Finish, const std::string&) { ++ended; };
      flover.submit(std::move(r));
    }
  }
  EXPECT_EQ(ended, 40);
  EXPECT_EQ(engine.kv().free_pages(), engine.kv().config().pages);
}

}  // namespace
}  // namespace cairn::engine::testing
