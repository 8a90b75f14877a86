// 64 requests at random, every way of reading prompts, moving slots and computing holes: the same tokens.
#include "engine/scheduling/flover_testing.h"

namespace cairn::engine::testing {
namespace {

TEST(Flover, AnswersAsAloneWhateverJoinsAndMoves) {
  const auto requests = model().requests(64, 0.3);
  for (const Prefill prefill : {Prefill::aside, Prefill::between}) {
    const auto never = run(requests, options(prefill, Shuffle::never, true));
    EXPECT_EQ(never.moves, 0u);
    EXPECT_GT(never.wasted_rows, 0u);
    const auto always = run(requests, options(prefill, Shuffle::always, true));
    EXPECT_GT(always.moves, 5u);
    EXPECT_GT(always.bytes_moved, 0u);
    EXPECT_LT(double(always.wasted_rows) / double(always.rows),
              double(never.wasted_rows) / double(never.rows));
    run(requests, options(prefill, Shuffle::automatic, true));
    const auto holes_free = run(requests, options(prefill, Shuffle::automatic, false));
    EXPECT_EQ(holes_free.moves, 0u);
    EXPECT_EQ(holes_free.wasted_rows, 0u);
    EXPECT_LT(holes_free.turns, holes_free.rows / 2);  // rows of several requests did share turns
  }
}

}  // namespace
}  // namespace cairn::engine::testing
