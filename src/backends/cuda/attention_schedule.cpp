#include "backends/cuda/attention_schedule.h"

#include <algorithm>
#include <limits>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

using attention::AttentionPlan;
using attention::QueryRows;

constexpr int64_t kDecodeTile = 32;  // tokens that count as one when items are put in order

struct ChunkRule {
  int64_t below, tokens;  // positions below this one
};
constexpr ChunkRule kChunkRules[] = {{4096, 512}, {16384, 1024}, {65536, 2048}};
constexpr int64_t kLongChunk = 4096;

void check_sequence(const QueryRows& s, size_t i, RowClass row_class, const ScheduleShape& shape) {
  if (s.rows < 0 || s.row_begin < 0 || s.position < 0 || s.kv_len < s.position + s.rows)
    fail(ErrorKind::invalid_argument,
         "attention plan: sequence {} has {} rows from row {} at position {}, but its cache holds {} tokens; "
         "they must be "
         "in the cache before attention runs",
         i, s.rows, s.row_begin, s.position, s.kv_len);
  // Token and row numbers are 32-bit on the device.
  if (s.kv_len > std::numeric_limits<int32_t>::max() - 65536 ||
      s.row_begin + s.rows > std::numeric_limits<int32_t>::max())
    fail(ErrorKind::invalid_argument,
         "attention plan: sequence {} has kv_len {} and ends at row {}; both must be below 2^31", i, s.kv_len,
         s.row_begin + s.rows);
  if (row_class == RowClass::decode && !shape.mask.causal)
    fail(ErrorKind::invalid_argument,
         "attention plan: sequence {} is of class decode, but the layer is not causal", i);
}

void add_decode_rows(const QueryRows& s, int32_t table, const ScheduleShape& shape, int rows_per_item,
                     std::vector<DecodeRow>& rows, std::vector<DecodeItem>& items, int64_t& state_parts) {
  const auto chunk_of = [&](int64_t position) {
    return shape.forced_chunk > 0 ? shape.forced_chunk : chunk_tokens(position);
  };
  for (int32_t row = 0; row < s.rows;) {
    const int64_t position = s.position + row, chunk = chunk_of(position);
    int32_t count = 1;
    while (count < rows_per_item && row + count < s.rows && chunk_of(position + count) == chunk) ++count;
    const auto first_row = int(rows.size());
    for (int32_t i = 0; i < count; ++i) {
      const int64_t at = position + i, begin = attention::visible(shape.mask, at, s.kv_len).begin;
      DecodeRow r{};
      r.q_row = int(s.row_begin + row + i);
      r.position = int(at), r.begin = int(begin);
      r.first_chunk = int(begin / chunk);
      r.parts = int(at / chunk) - r.first_chunk + 1;
      if (r.parts > 1) {
        r.state_base = int(state_parts) - r.first_chunk;
        state_parts += r.parts;
      }
      rows.push_back(r);
    }
    const int64_t begin = rows[size_t(first_row)].begin, end = position + count;
    for (int64_t c = begin / chunk; c * chunk < end; ++c) {
      DecodeItem item{};
      item.first_row = first_row, item.rows = count;
      item.token_begin = int(std::max(begin, c * chunk)),
      item.token_end = int(std::min(end, (c + 1) * chunk));
      item.chunk = int(c), item.table = table, item.fresh = int(s.position);
      items.push_back(item);
    }
    row += count;
  }
}

int64_t tiles(const DecodeItem& item) {
  return ceil_div(item.token_end, kDecodeTile) - item.token_begin / kDecodeTile;
}

// By falling number of tiles; equal ones stay in order. Linear where chunks are short, as they are outside of
// benches.
void order_items(const std::vector<DecodeItem>& items, std::vector<DecodeItem>& ordered) {
  constexpr int64_t kBuckets = kLongChunk / kDecodeTile + 2;
  size_t starts[kBuckets + 1] = {};
  const auto bucket = [](const DecodeItem& item) {
    return kBuckets - 1 - std::min(tiles(item), kBuckets - 1);
  };
  for (const DecodeItem& item : items) ++starts[bucket(item) + 1];
  for (int64_t b = 0; b < kBuckets; ++b) starts[b + 1] += starts[b];
  const size_t oversized = starts[1];
  ordered.resize(items.size());
  for (const DecodeItem& item : items) ordered[starts[bucket(item)]++] = item;
  std::stable_sort(ordered.begin(), ordered.begin() + std::ptrdiff_t(oversized),
                   [](const DecodeItem& a, const DecodeItem& b) { return tiles(a) > tiles(b); });
}

void add_prompt_tiles(const QueryRows& s, int32_t table, const ScheduleShape& shape, int rows_per_item,
                      std::vector<PromptItem>& items) {
  for (int32_t row = 0; row < s.rows; row += rows_per_item) {
    PromptItem item{};
    item.q_row = int(s.row_begin + row), item.rows = std::min(rows_per_item, s.rows - row);
    item.position = int(s.position + row), item.kv_len = int(s.kv_len), item.table = table;
    item.token_begin = int(attention::visible(shape.mask, s.position + row, s.kv_len).begin);
    item.token_end = int(attention::visible(shape.mask, s.position + row + item.rows - 1, s.kv_len).end);
    items.push_back(item);
  }
}

}  // namespace

int64_t chunk_tokens(int64_t position) {
  for (const ChunkRule& rule : kChunkRules)
    if (position < rule.below) return rule.tokens;
  return kLongChunk;
}

int64_t most_chunks(int64_t rows, int64_t tokens) {
  // The most chunks of one row up to a position grow along a concave line through the ends of the rules'
  // ranges, so rows of equal length have the most.
  if (rows <= 0) return 0;
  const int64_t position = ceil_div(tokens, rows);
  int64_t from = 0, chunks = 1;
  for (const ChunkRule& rule : kChunkRules) {
    const int64_t end = rule.below - 1, at_end = end / rule.tokens + 1;
    if (position <= end) return rows * (chunks + ceil_div((position - from) * (at_end - chunks), end - from));
    from = end, chunks = at_end;
  }
  return rows * (chunks + ceil_div(position - from, kLongChunk));
}

void make_schedule(const AttentionPlan& plan, std::span<const RowClass> classes,
                   std::span<const int32_t> table_starts, const ScheduleShape& shape, Schedule& schedule) {
  schedule.decode_rows.clear(), schedule.decode_items.clear(), schedule.prompt_items.clear();
  schedule.unordered_.clear(), schedule.tiles_.clear();
  schedule.state_parts = 0;
  const attention::MaskShape& mask = shape.mask;
  if (mask.kv_heads <= 0 || mask.heads <= 0 || mask.heads % mask.kv_heads != 0)
    fail(ErrorKind::invalid_argument, "attention plan: {} heads cannot share {} KV heads evenly", mask.heads,
         mask.kv_heads);
  if (classes.size() != plan.sequences.size() || table_starts.size() != plan.sequences.size())
    fail(ErrorKind::invalid_argument, "attention plan: {} sequences, but {} classes and {} block tables",
         plan.sequences.size(), classes.size(), table_starts.size());
  const int group = mask.heads / mask.kv_heads;
  if (group > shape.prompt_vectors)
    fail(ErrorKind::invalid_argument, "attention plan: {} heads per KV head, at most {} are supported", group,
         shape.prompt_vectors);
  const int decode_rows = std::max(1, shape.decode_vectors / group),
            prompt_rows = shape.prompt_vectors / group;

  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const QueryRows& s = plan.sequences[i];
    check_sequence(s, i, classes[i], shape);
    if (classes[i] == RowClass::decode)
      add_decode_rows(s, table_starts[i], shape, decode_rows, schedule.decode_rows, schedule.unordered_,
                      schedule.state_parts);
    else
      add_prompt_tiles(s, table_starts[i], shape, prompt_rows, schedule.tiles_);
  }
  order_items(schedule.unordered_, schedule.decode_items);

  const auto tokens = [](const PromptItem& item) { return item.token_end - item.token_begin; };
  std::stable_sort(schedule.tiles_.begin(), schedule.tiles_.end(),
                   [&](const PromptItem& a, const PromptItem& b) { return tokens(a) > tokens(b); });
  schedule.prompt_items.reserve(schedule.tiles_.size() * size_t(mask.kv_heads));
  for (PromptItem item : schedule.tiles_)
    for (item.kv_head = 0; item.kv_head < mask.kv_heads; ++item.kv_head)
      schedule.prompt_items.push_back(item);
}

}  // namespace cairn::cuda
