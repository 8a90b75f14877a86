#include "attention/plan.h"

#include <algorithm>

#include "base/checked.h"

namespace cairn::attention {
namespace {

// Enough pieces per thread that the last ones to end are short beside the whole.
constexpr int64_t kItemsPerThread = 4;

}  // namespace

int64_t AttentionPlan::rows() const {
  int64_t sum = 0;
  for (const auto& s : sequences) sum += s.rows;
  return sum;
}

Visible visible(const MaskShape& shape, int64_t position, int64_t kv_len) {
  Visible v{0, kv_len};
  if (shape.window > 0) {
    v.begin = std::max<int64_t>(0, position - shape.window + 1);
    v.end = std::min(kv_len, position + shape.window);
  }
  if (shape.causal) v.end = std::min(v.end, position + 1);
  v.begin = std::min(v.begin, v.end);
  return v;
}

void make_work(const AttentionPlan& plan, const MaskShape& shape, int threads, int vector_limit,
               int64_t state_limit, WorkList& work) {
  work.items.clear();
  work.joins.clear();
  work.state_vectors = 0;
  const int group = shape.heads / shape.kv_heads;
  const int64_t wanted = kItemsPerThread * threads;

  // Blocks of rows as large as the limit allows (keys are packed once per block), smaller when that leaves
  // threads idle.
  int block_rows = std::max(1, vector_limit / group);
  const auto items_of = [&](int rows) {
    int64_t items = 0;
    for (const auto& s : plan.sequences) items += ceil_div(s.rows, rows) * shape.kv_heads;
    return items;
  };
  while (block_rows > 1 && block_rows * group > 32 && items_of(block_rows) < wanted)
    block_rows = (block_rows + 1) / 2;
  const bool split = threads > 1 && items_of(block_rows) < wanted;

  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const QueryRows& s = plan.sequences[i];
    for (int32_t row = 0; row < s.rows; row += block_rows) {
      WorkItem item{.sequence = int32_t(i), .row_begin = row, .rows = std::min(block_rows, s.rows - row)};
      item.token_begin = visible(shape, s.position + row, s.kv_len).begin;
      item.token_end = visible(shape, s.position + row + item.rows - 1, s.kv_len).end;
      const int64_t first = item.token_begin / kMergeTokens,
                    parts = ceil_div(item.token_end, kMergeTokens) - first;
      const int64_t vectors = int64_t{item.rows} * group;
      for (item.kv_head = 0; item.kv_head < shape.kv_heads; ++item.kv_head) {
        item.join = -1;
        if (!split || parts < 2 || work.state_vectors + parts * vectors > state_limit) {
          work.items.push_back(item);
          continue;
        }
        item.join = int32_t(work.joins.size());
        work.joins.push_back({.parts = int32_t(parts), .state = work.state_vectors});
        work.state_vectors += parts * vectors;
        WorkItem piece = item;
        for (piece.part = 0; piece.part < parts; ++piece.part) {
          piece.token_begin = std::max(item.token_begin, (first + piece.part) * kMergeTokens);
          piece.token_end = std::min(item.token_end, (first + piece.part + 1) * kMergeTokens);
          work.items.push_back(piece);
        }
      }
    }
  }
  const auto cost = [&](const WorkItem& item) {
    return (item.token_end - item.token_begin) * (item.rows * group + 8);
  };
  std::stable_sort(work.items.begin(), work.items.end(),
                   [&](const WorkItem& a, const WorkItem& b) { return cost(a) > cost(b); });
}

}  // namespace cairn::attention
