#include "backends/cuda/attention_schedule.h"

#include <algorithm>
#include <limits>
#include <numeric>

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
constexpr int kNoMask = std::numeric_limits<int>::max();

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
  attention::check_mask(s, i);
  if (row_class == RowClass::prompt && !s.mask.empty() && !shape.prompt_masks)
    fail(ErrorKind::unsupported,
         "attention plan: sequence {} is of class prompt and has a mask of its own; this kind of layer was "
         "not prepared for that",
         i);
  if (row_class == RowClass::decode && !shape.mask.causal)
    fail(ErrorKind::invalid_argument,
         "attention plan: sequence {} is of class decode, but the layer is not causal", i);
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

void add_prompt_tiles(const QueryRows& s, int32_t table, int32_t mask, const ScheduleShape& shape,
                      int rows_per_item, std::vector<PromptItem>& items, std::vector<PromptMask>& masks) {
  for (int32_t row = 0; row < s.rows; row += rows_per_item) {
    PromptItem item{};
    item.q_row = int(s.row_begin + row), item.rows = std::min(rows_per_item, s.rows - row);
    item.position = int(s.position + row), item.kv_len = int(s.kv_len), item.table = table;
    item.token_begin = int(attention::visible(shape.mask, s.position + row, s.kv_len).begin);
    item.token_end = int(attention::visible(shape.mask, s.position + row + item.rows - 1, s.kv_len).end);
    items.push_back(item);
    if (!shape.prompt_masks) continue;
    PromptMask m{kNoMask, 0, 0, 0};
    if (!s.mask.empty())
      m.begin = int(s.mask_begin), m.words = int(s.mask_words()), m.at = mask + row * m.words;
    masks.push_back(m);
  }
}

}  // namespace

void Schedule::add_decode_blocks(const QueryRows& s, int32_t table, int32_t mask, const ScheduleShape& shape,
                                 int rows_per_block, Schedule& to) {
  const auto chunk_of = [&](int64_t position) {
    return shape.forced_chunk > 0 ? shape.forced_chunk : chunk_tokens(position);
  };
  for (int32_t row = 0; row < s.rows;) {
    const int64_t position = s.position + row, chunk = chunk_of(position);
    int32_t count = 1;
    while (count < rows_per_block && row + count < s.rows && chunk_of(position + count) == chunk) ++count;
    const auto first_row = int(to.decode_rows.size());
    for (int32_t i = 0; i < count; ++i) {
      const int64_t at = position + i, begin = attention::visible(shape.mask, at, s.kv_len).begin;
      DecodeRow r{};
      r.q_row = int(s.row_begin + row + i);
      r.position = int(at), r.begin = int(begin);
      r.first_chunk = int(begin / chunk);
      r.parts = int(at / chunk) - r.first_chunk + 1;
      if (r.parts > 1) {
        r.state_base = int(to.state_parts) - r.first_chunk;
        to.state_parts += r.parts;
      }
      r.mask_begin = s.mask.empty() ? kNoMask : int(s.mask_begin);
      r.mask_at = s.mask.empty() ? 0 : mask + (row + i) * int(s.mask_words());
      to.decode_rows.push_back(r);
    }
    to.blocks_.push_back({first_row, count, chunk, to.decode_rows[size_t(first_row)].begin, position + count,
                          table, int32_t(s.position)});
    // Shared are whole chunks that all rows of the block see and that lie in the cache from earlier steps.
    attention::PrefixReader reader;
    if (shape.shared_vectors > 0 && chunk % shape.page_tokens == 0 && to.decode_rows.back().begin == 0)
      reader = {s.block_table.data(), chunk / shape.page_tokens, std::min(s.position, s.open_end()) / chunk};
    to.readers_.push_back(reader);
    row += count;
  }
}

void Schedule::gather_shared(const ScheduleShape& shape) {
  const int most_rows = shape.shared_vectors / (shape.mask.heads / shape.mask.kv_heads);
  attention::find_shared_prefixes(readers_, prefixes_);
  struct List {
    int first, rows;
  };
  std::vector<List> lists;
  for (const attention::SharedUnits& group : prefixes_.groups) {
    const auto members =
        std::span(prefixes_.members).subspan(size_t(group.first_member), size_t(group.members));
    // The group's rows in lists of what one item takes; items of a chunk follow each other, so that its keys
    // and values are in the second-level cache.
    lists.clear();
    for (const int32_t b : members) {
      const Block& block = blocks_[size_t(b)];
      if (lists.empty() || lists.back().rows + block.rows > most_rows)
        lists.push_back({int(shared_rows.size()), 0});
      for (int i = 0; i < block.rows; ++i) shared_rows.push_back(block.first_row + i);
      lists.back().rows += block.rows;
    }
    const Block& any = blocks_[size_t(members[0])];
    for (int64_t unit = group.begin; unit < group.end; ++unit)
      for (const List& list : lists) {
        DecodeItem item{};
        item.first_row = list.first, item.rows = list.rows;
        item.token_begin = int(unit * any.chunk), item.token_end = int((unit + 1) * any.chunk);
        item.chunk = int(unit), item.table = any.table, item.fresh = std::numeric_limits<int>::max();
        unordered_.push_back(item);
      }
  }
  order_items(unordered_, shared_items);
  unordered_.clear();
}

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
                   std::span<const int32_t> table_starts, const ScheduleShape& shape, Schedule& schedule,
                   std::span<const int32_t> mask_starts) {
  schedule.decode_rows.clear(), schedule.decode_items.clear(), schedule.prompt_items.clear();
  schedule.shared_items.clear(), schedule.shared_rows.clear(), schedule.prompt_masks.clear();
  schedule.unordered_.clear(), schedule.tiles_.clear(), schedule.tile_masks_.clear();
  schedule.blocks_.clear(), schedule.readers_.clear();
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
    const int32_t first_word = mask_starts.empty() ? 0 : mask_starts[i];
    if (classes[i] == RowClass::decode)
      Schedule::add_decode_blocks(s, table_starts[i], first_word, shape, decode_rows, schedule);
    else
      add_prompt_tiles(s, table_starts[i], first_word, shape, prompt_rows, schedule.tiles_,
                       schedule.tile_masks_);
  }
  if (shape.shared_vectors > 0) schedule.gather_shared(shape);
  for (size_t b = 0; b < schedule.blocks_.size(); ++b) {
    const Schedule::Block& block = schedule.blocks_[b];
    const int64_t shared = shape.shared_vectors > 0 ? schedule.prefixes_.shared[b] : 0;
    for (int64_t c = std::max(shared, block.begin / block.chunk); c * block.chunk < block.end; ++c) {
      DecodeItem item{};
      item.first_row = block.first_row, item.rows = block.rows;
      item.token_begin = int(std::max(block.begin, c * block.chunk));
      item.token_end = int(std::min(block.end, (c + 1) * block.chunk));
      item.chunk = int(c), item.table = block.table, item.fresh = block.fresh;
      schedule.unordered_.push_back(item);
    }
  }
  order_items(schedule.unordered_, schedule.decode_items);

  const std::vector<PromptItem>& tiles = schedule.tiles_;
  std::vector<int32_t>& order = schedule.tile_order_;
  order.resize(tiles.size());
  std::iota(order.begin(), order.end(), 0);
  const auto tokens = [&](int32_t i) { return tiles[size_t(i)].token_end - tiles[size_t(i)].token_begin; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return tokens(a) > tokens(b); });
  schedule.prompt_items.reserve(tiles.size() * size_t(mask.kv_heads));
  for (const int32_t i : order) {
    PromptItem item = tiles[size_t(i)];
    for (item.kv_head = 0; item.kv_head < mask.kv_heads; ++item.kv_head) {
      schedule.prompt_items.push_back(item);
      if (shape.prompt_masks) schedule.prompt_masks.push_back(schedule.tile_masks_[size_t(i)]);
    }
  }
}

}  // namespace cairn::cuda
