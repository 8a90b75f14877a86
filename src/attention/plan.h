// Which keys and values each query row of a step reads, and how that reading is cut into pieces of work.
//
// The cuts never show in the results. Keys are processed in tiles of kTileTokens and states are joined at
// multiples of kMergeTokens, both counted from token 0 of the sequence, in ascending order; each row's
// arithmetic is its own. So a row gives the same bits alone (decode), inside a chunk of many rows (prefill),
// in any batch, on any number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace cairn::attention {

inline constexpr int kTileTokens = 64;
// Online softmax runs over this many tokens; then its state is joined to that of the tokens before. Pieces of
// a long sequence end here, so several threads can share one head.
inline constexpr int64_t kMergeTokens = 2048;
// Query vectors of one KV head are processed and their states kept in strips of this many.
inline constexpr int kStripVectors = 16;

// The rows of one sequence in a step: consecutive tokens at position, position + 1, ...
struct QueryRows {
  int64_t row_begin = 0;  // the first one's row in q and out
  int32_t rows = 0;
  int64_t position = 0;                       // of the first row
  int64_t kv_len = 0;                         // tokens in the cache, those of these rows included
  std::span<const int32_t> block_table = {};  // the sequence's pages; must outlive the plan
  // A mask of its own, such as that of a tree of guesses: of the tokens from mask_begin on, row r sees those
  // with a set bit (word (t - mask_begin) / 32 of the row's mask_words(), lowest bit first), as far as the
  // layer lets it see them anyway. Empty: all. Must outlive the plan.
  std::span<const uint32_t> mask = {};
  int64_t mask_begin = 0;

  int64_t mask_words() const { return (kv_len - mask_begin + 31) / 32; }
  bool masks(int64_t row, int64_t token) const {
    if (mask.empty() || token < mask_begin) return false;
    const int64_t bit = token - mask_begin;
    return (mask[size_t(row * mask_words() + bit / 32)] >> (bit % 32) & 1) == 0;
  }
  // The first token that a mask says something about.
  int64_t open_end() const { return mask.empty() ? kv_len : mask_begin; }
};
// Throws Error(invalid_argument) naming the sequence and the values when a mask is not of its rows and
// tokens.
void check_mask(const QueryRows&, size_t sequence);

// The dense plan: every row reads the keys before it that mask and window let it see.
struct AttentionPlan {
  std::vector<QueryRows> sequences;
  int64_t rows() const;
};

// Tokens [begin, end) that the query at a position may see.
struct Visible {
  int64_t begin = 0, end = 0;
};

// What of a layer's attention decides who sees what.
struct MaskShape {
  int heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads
  int window = 0;               // positions |query - key| < window are seen; 0: all
  bool causal = true;
};
Visible visible(const MaskShape&, int64_t position, int64_t kv_len);

// One piece: the query vectors (row, head) of a block of rows and of some KV heads against a range of tokens.
struct WorkItem {
  int32_t sequence = 0;
  int32_t kv_head = 0, kv_heads = 1;  // several where there are few vectors: their pages are read in one run
  int32_t row_begin = 0, rows = 0;    // within the sequence's rows
  int64_t token_begin = 0, token_end = 0;
  int32_t join = -1;  // its Join; -1: the item covers all its rows see and finishes alone
  int32_t part = 0;   // its place in the join
};

// Parts of the same rows whose states are joined in ascending order by whoever ends last.
struct Join {
  int32_t parts = 0;
  int64_t state = 0;  // index of the first part's first vector; parts follow each other
};

struct WorkList {
  std::vector<WorkItem> items;  // costly ones first: threads take the next when they are free
  std::vector<Join> joins;
  int64_t state_vectors = 0;  // query vectors of all joined parts
};

// vector_limit bounds the query vectors of an item of one KV head (at least heads / kv_heads), and the
// strips' vectors of one of several heads. Long ranges are split while that keeps state_vectors within
// state_limit.
void make_work(const AttentionPlan&, const MaskShape&, int threads, int vector_limit, int64_t state_limit,
               WorkList&);

}  // namespace cairn::attention
