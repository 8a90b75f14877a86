// The planner of the attention engine: cuts the rows of a step into items for the kernels. Runs on the CPU
// once per step and kind of layer (mask); all layers of the kind read the same arrays (FlashInfer, arXiv
// 2501.01005, section 3).
//
// What is cut, and where, follows from a row's own position alone, so a row gives the same bits in any batch:
//   decode rows: chunks of chunk_tokens(position) tokens, at multiples of that counted from token 0, one
//   state
//     per chunk, joined in one order (attention_merge.cu);
//   prompt rows: no cut; tiles of keys from token 0 upwards.
// The planner only chooses which rows share an item (their arithmetic stays apart) and in which order items
// are taken: costly ones first, dealt to the workers in turn, so that ragged batches keep all of them busy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "attention/plan.h"
#include "attention/shared_prefix.h"
#include "backends/common/executor.h"
#include "backends/cuda/kernels/attention_records.cuh"

namespace cairn::cuda {

using backends::RowClass;

// Tokens of a chunk of a decode row. Small enough that one sequence of a model with eight KV heads fills a
// good part of a GPU, large enough that states (dim f32 per head and chunk) are few beside keys and values.
int64_t chunk_tokens(int64_t position);
// The most chunks that `rows` rows can have together when their positions add up to `tokens` at most.
int64_t most_chunks(int64_t rows, int64_t tokens);

struct ScheduleShape {
  attention::MaskShape mask;
  int decode_vectors = 8;    // query vectors of a decode item: VECTORS of attention_decode.cu
  int prompt_vectors = 128;  // of a prompt item: 16 * WARPS of attention_prompt.cu
  // Chunks that rows of several items read from the same pages are read by items of up to this many vectors:
  // VECTORS of attention_decode.cu SHARED=1. 0: each row reads for itself.
  int shared_vectors = 0;
  int page_tokens = 0;        // what shared_vectors needs
  bool prompt_masks = false;  // whether prompt rows may have masks of their own
  // For benches only: chunks of this many tokens for every decode row; results then differ in rounding.
  int64_t forced_chunk = 0;
};

struct Schedule {
  std::vector<DecodeRow> decode_rows;
  std::vector<DecodeItem> decode_items;  // each for all KV heads; those with more tiles first
  std::vector<DecodeItem> shared_items;  // the same, of rows that share pages
  std::vector<int32_t> shared_rows;      // whose rows are those: indices of decode_rows
  std::vector<PromptItem> prompt_items;  // those with more tokens first
  std::vector<PromptMask> prompt_masks;  // one per prompt item, if asked for
  int64_t state_parts = 0;               // chunks of rows that have several; a state per query head each

 private:
  friend void make_schedule(const attention::AttentionPlan&, std::span<const RowClass>,
                            std::span<const int32_t>, const ScheduleShape&, Schedule&,
                            std::span<const int32_t>);

  // Consecutive decode rows of a sequence that share their items.
  struct Block {
    int first_row, rows;
    int64_t chunk, begin, end;  // tokens that any of them sees
    int32_t table, fresh;
  };
  static void add_decode_blocks(const attention::QueryRows&, int32_t table, int32_t mask,
                                const ScheduleShape&, int rows_per_block, Schedule&);
  void gather_shared(const ScheduleShape&);
  std::vector<Block> blocks_;
  std::vector<attention::PrefixReader> readers_;  // one per block
  attention::SharedPrefixes prefixes_;
  std::vector<DecodeItem> unordered_;
  std::vector<PromptItem> tiles_;
  std::vector<PromptMask> tile_masks_;
  std::vector<int32_t> tile_order_;
};

// classes: one per sequence of the plan. table_starts, mask_starts: where each sequence's pages begin in the
// joined block tables, and its words in the joined masks (empty: no sequence has a mask). Decode rows must be
// causal. Throws Error(invalid_argument) naming sequence, field and values:
// positions that are negative or pass kv_len, heads that are no multiple of kv_heads, a decode row that is
// not causal.
void make_schedule(const attention::AttentionPlan&, std::span<const RowClass> classes,
                   std::span<const int32_t> table_starts, const ScheduleShape&, Schedule&,
                   std::span<const int32_t> mask_starts = {});

}  // namespace cairn::cuda
