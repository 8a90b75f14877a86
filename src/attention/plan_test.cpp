#include "attention/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

namespace cairn::attention {
namespace {

TEST(Visible, CausalAndWindow) {
  const auto range = [](const MaskShape& shape, int64_t position, int64_t kv_len) {
    const Visible v = visible(shape, position, kv_len);
    return std::pair(v.begin, v.end);
  };
  EXPECT_EQ(range({.window = 0, .causal = true}, 5, 100), std::pair(int64_t{0}, int64_t{6}));
  EXPECT_EQ(range({.window = 3, .causal = true}, 5, 100), std::pair(int64_t{3}, int64_t{6}));
  EXPECT_EQ(range({.window = 8, .causal = true}, 5, 100), std::pair(int64_t{0}, int64_t{6}));
  EXPECT_EQ(range({.window = 3, .causal = false}, 5, 100), std::pair(int64_t{3}, int64_t{8}));
  EXPECT_EQ(range({.window = 0, .causal = false}, 5, 7), std::pair(int64_t{0}, int64_t{7}));
  EXPECT_EQ(range({.window = 2, .causal = true}, 9, 4), std::pair(int64_t{4}, int64_t{4}));
}

// Every (row, kv head) is covered by one item, or by the parts of one join, over exactly the tokens it may
// see.
TEST(MakeWork, CoversEveryRowAndTokenOnce) {
  for (const int threads : {1, 2, 16})
    for (const int window : {0, 100, 3000})
      for (const int64_t state_limit : {int64_t{0}, int64_t{1} << 30}) {
        AttentionPlan plan;
        plan.sequences.push_back({.row_begin = 0, .rows = 1, .position = 9999, .kv_len = 10000});
        plan.sequences.push_back({.row_begin = 1, .rows = 70, .position = 4050, .kv_len = 4120});
        plan.sequences.push_back({.row_begin = 71, .rows = 3, .position = 0, .kv_len = 3});
        const MaskShape shape{.heads = 8, .kv_heads = 2, .window = window};
        WorkList work;
        make_work(plan, shape, threads, 256, state_limit, work);
        std::map<std::pair<int, int64_t>, std::vector<std::pair<int64_t, int64_t>>> ranges;
        std::vector<int> parts(work.joins.size());
        int64_t state_vectors = 0;
        for (const WorkItem& item : work.items) {
          EXPECT_LE(item.rows * 4, 256);
          EXPECT_LT(item.token_begin, item.token_end);
          if (item.join >= 0) {
            ++parts[size_t(item.join)], state_vectors += item.kv_heads * ((item.rows * 4 + 15) / 16 * 16);
            EXPECT_LE(item.token_end - item.token_begin, kMergeTokens);
          }
          for (int head = item.kv_head; head < item.kv_head + item.kv_heads; ++head)
            for (int32_t row = item.row_begin; row < item.row_begin + item.rows; ++row)
              ranges[{head, plan.sequences[size_t(item.sequence)].row_begin + row}].push_back(
                  {item.token_begin, item.token_end});
        }
        EXPECT_EQ(state_vectors, work.state_vectors);
        EXPECT_LE(state_vectors, state_limit);
        for (size_t j = 0; j < parts.size(); ++j) EXPECT_EQ(parts[j], work.joins[j].parts);
        EXPECT_EQ(ranges.size(), size_t(2 * 74));
        for (const auto& s : plan.sequences)
          for (int64_t row = 0; row < s.rows; ++row)
            for (int head = 0; head < 2; ++head) {
              auto& r = ranges[{head, s.row_begin + row}];
              std::sort(r.begin(), r.end());
              for (size_t i = 1; i < r.size(); ++i) {
                EXPECT_EQ(r[i].first, r[i - 1].second);
                EXPECT_EQ(r[i].first % kMergeTokens, 0);
              }
              const Visible v = visible(shape, s.position + row, s.kv_len);
              EXPECT_LE(r.front().first, v.begin);
              EXPECT_GE(r.back().second, v.end);
            }
      }
}

TEST(MakeWork, ALongDecodeReadsWholePagesAndStillFeedsEveryThread) {
  AttentionPlan plan;
  plan.sequences.push_back({.rows = 1, .position = 32767, .kv_len = 32768});
  const MaskShape shape{.heads = 32, .kv_heads = 8};
  WorkList work;
  const auto shape_of_work = [&](int threads, int64_t state_limit) {
    make_work(plan, shape, threads, 256, state_limit, work);
    return std::tuple(work.items.size(), work.items[0].kv_heads, work.joins.size());
  };
  EXPECT_EQ(shape_of_work(1, 1 << 20), std::tuple(1u, 8, 0u));
  EXPECT_EQ(shape_of_work(2, 1 << 20), std::tuple(16u, 8, 1u));
  EXPECT_EQ(shape_of_work(16, 1 << 20), std::tuple(64u, 2, 4u));
  EXPECT_EQ(shape_of_work(2, 0), std::tuple(8u, 1, 0u));
}

}  // namespace
}  // namespace cairn::attention
