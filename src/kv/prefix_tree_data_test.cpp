#include <gtest/gtest.h>

#include <set>

#include "base/testing.h"
#include "kv/prefix_tree.h"
#include "kv/trace_testing.h"

namespace cairn::kv {
namespace {

// One token of the tree stands for one block of the trace. With room for all, what is found must be exactly
// what any earlier prompt began with.
TEST(PrefixTreeTrace, WithRoomForAllTheHitRateIsTheIdeal) {
  CAIRN_NEED_DATA("traces/mooncake/conversation_trace.jsonl");
  const auto trace = load_trace(testing::data_folder() / "traces/mooncake/conversation_trace.jsonl");
  ASSERT_EQ(trace.size(), 12031u);
  KvPool pool({.layers = 1,
               .kv_heads = 1,
               .head_dim_k = 1,
               .head_dim_v = 1,
               .page_tokens = 1,
               .form = KvForm::f16,
               .pages = 200'000},
              KvPool::Memory::elsewhere);
  PrefixTree tree(pool, "trace");
  std::set<int32_t> seen;  // a block's id stands for all before it as well
  int64_t ideal = 0, found = 0, blocks = 0;
  for (const TraceRequest& request : trace) {
    size_t known = 0;
    while (known < request.blocks.size() && seen.contains(request.blocks[known])) ++known;
    seen.insert(request.blocks.begin(), request.blocks.end());

    std::vector<int32_t> prompt = request.blocks;
    prompt.push_back(-1);  // the last token is never reused
    const auto match = tree.match(prompt);
    ASSERT_EQ(match.tokens, int64_t(known));
    Sequence sequence(pool);
    sequence.adopt(match.pages, match.tokens);
    sequence.append(int64_t(request.blocks.size()) - match.tokens);
    tree.insert(request.blocks, sequence);
    ideal += int64_t(known);
    found += match.tokens;
    blocks += int64_t(request.blocks.size());
  }
  EXPECT_EQ(found, ideal);
  EXPECT_EQ(ideal, 105'710);  // 36.6 % of 288,500
  EXPECT_EQ(blocks, 288'500);
  EXPECT_EQ(tree.stats().pages, int64_t(seen.size()));
  EXPECT_EQ(tree.problems(), "");
  EXPECT_EQ(tree.reclaim(pool.config().pages), int64_t(seen.size()));
  EXPECT_EQ(pool.free_pages(), pool.config().pages);
}

}  // namespace
}  // namespace cairn::kv
