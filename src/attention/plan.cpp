#include "attention/plan.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::attention {
namespace {

// Enough pieces per thread that the last ones to end are short beside the whole.
constexpr int64_t kItemsPerThread = 4;

struct Block {
  WorkItem item;      // of all KV heads and tokens
  int parts;          // pieces that its tokens can be cut into
  int strip_vectors;  // of one KV head
};

}  // namespace

int64_t AttentionPlan::rows() const {
  int64_t sum = 0;
  for (const auto& s : sequences) sum += s.rows;
  return sum;
}

void check_mask(const QueryRows& s, size_t sequence) {
  if (s.mask.empty()) return;
  if (s.mask_begin < 0 || s.mask_begin > s.kv_len)
    fail(ErrorKind::invalid_argument,
         "attention plan: the mask of sequence {} begins at token {}, but its cache holds {}", sequence,
         s.mask_begin, s.kv_len);
  if (int64_t(s.mask.size()) != s.rows * s.mask_words())
    fail(ErrorKind::invalid_argument,
         "attention plan: the mask of sequence {} has {} words; {} rows of {} tokens need {}", sequence,
         s.mask.size(), s.rows, s.kv_len - s.mask_begin, s.rows * s.mask_words());
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
  const int64_t wanted = threads == 1 ? 1 : kItemsPerThread * threads;

  // Blocks of rows as large as the limit allows (keys are packed once per block), smaller when that leaves
  // threads idle.
  int block_rows = std::max(1, vector_limit / group);
  const auto blocks_of = [&](int rows) {
    int64_t blocks = 0;
    for (const auto& s : plan.sequences) blocks += ceil_div(s.rows, rows);
    return blocks;
  };
  while (block_rows > 1 && block_rows * group > 32 && blocks_of(block_rows) * shape.kv_heads < wanted)
    block_rows = (block_rows + 1) / 2;

  std::vector<Block> blocks;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const QueryRows& s = plan.sequences[i];
    for (int32_t row = 0; row < s.rows; row += block_rows) {
      Block b{{.sequence = int32_t(i), .row_begin = row, .rows = std::min(block_rows, s.rows - row)}, 0, 0};
      b.item.token_begin = visible(shape, s.position + row, s.kv_len).begin;
      b.item.token_end = visible(shape, s.position + row + b.item.rows - 1, s.kv_len).end;
      b.parts = int(ceil_div(b.item.token_end, kMergeTokens) - b.item.token_begin / kMergeTokens);
      b.strip_vectors = int(round_up(int64_t{b.item.rows} * group, kStripVectors));
      blocks.push_back(b);
    }
  }

  // Parts make up for too few blocks, and they let an item take many heads, so that pages are read from end
  // to end.
  int64_t state_vectors = 0, items = 0, parts = 0;
  for (const Block& b : blocks) {
    if (b.parts > 1) state_vectors += int64_t{b.parts} * shape.kv_heads * b.strip_vectors;
    items += 1, parts += std::max(1, b.parts);
  }
  const bool can_split = threads > 1 && state_vectors <= state_limit;
  int heads = shape.kv_heads;
  const auto too_few = [&] { return (can_split ? parts : items) * (shape.kv_heads / heads) < wanted; };
  while (heads > 1 && (shape.kv_heads % heads != 0 || heads * kStripVectors > vector_limit || too_few()))
    --heads;

  for (const Block& b : blocks) {
    WorkItem item = b.item;
    item.kv_heads = b.strip_vectors == kStripVectors ? heads : 1;
    const bool split = can_split && b.parts > 1 && items * (shape.kv_heads / item.kv_heads) < wanted;
    const int64_t first = item.token_begin / kMergeTokens;
    for (item.kv_head = 0; item.kv_head < shape.kv_heads; item.kv_head += item.kv_heads) {
      if (!split) {
        work.items.push_back(item);
        continue;
      }
      WorkItem piece = item;
      piece.join = int32_t(work.joins.size());
      work.joins.push_back({.parts = b.parts, .state = work.state_vectors});
      work.state_vectors += int64_t{b.parts} * item.kv_heads * b.strip_vectors;
      for (piece.part = 0; piece.part < b.parts; ++piece.part) {
        piece.token_begin = std::max(item.token_begin, (first + piece.part) * kMergeTokens);
        piece.token_end = std::min(item.token_end, (first + piece.part + 1) * kMergeTokens);
        work.items.push_back(piece);
      }
    }
  }
  const auto cost = [&](const WorkItem& item) {
    return (item.token_end - item.token_begin) * item.kv_heads * (item.rows * group + 8);
  };
  std::stable_sort(work.items.begin(), work.items.end(),
                   [&](const WorkItem& a, const WorkItem& b) { return cost(a) > cost(b); });
}

}  // namespace cairn::attention
