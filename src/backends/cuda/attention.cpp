#include "backends/cuda/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

constexpr int64_t kRecord = 32;           // bytes of a DecodeRow, DecodeItem, PromptItem
constexpr int kHopperTile = 128;          // tokens: kTile of attention_prompt_sm90.cu
constexpr unsigned kHopperThreads = 384;  // of that kernel
constexpr unsigned kMergeThreads = 256;   // of attention_merge.cu
constexpr unsigned kAppendThreads = 256;  // of rope_kv_append.cu
constexpr int64_t kAlignment = 16;        // of the plan's parts
static_assert(sizeof(DecodeRow) == kRecord && sizeof(DecodeItem) == kRecord && sizeof(PromptItem) == kRecord);

// Bytes of a row of a tile in shared memory: an odd number of 16-byte chunks.
int shared_row(int dim) { return (dim / 8 | 1) * 16; }

std::string define(const char* name, int64_t value) { return fmt::format("{}={}", name, value); }

int form_number(kv::KvForm form) {  // CACHE_FORM of attention_forms.cuh
  switch (form) {
    case kv::KvForm::bf16: return 0;
    case kv::KvForm::f16: return 1;
    case kv::KvForm::q8_0: return 2;
    default: return 3;
  }
}

void check_form(const kv::KvConfig& c) {
  if (c.form == kv::KvForm::f32)
    fail(ErrorKind::unsupported,
         "the GPU's attention kernels read a cache of bf16, f16, q8_0 or e4m3, not {}", to_string(c.form));
  const bool blocks = c.form == kv::KvForm::q8_0 || c.form == kv::KvForm::e4m3;
  for (const int dim : {c.head_dim_k, c.head_dim_v})
    if (dim <= 0 || dim % (blocks ? 32 : 16) != 0 || dim > 256)
      fail(ErrorKind::unsupported,
           "the GPU's attention kernels take heads of up to 256 elements in steps of {} with a {} cache; "
           "this model "
           "has {} and {}",
           blocks ? 32 : 16, to_string(c.form), c.head_dim_k, c.head_dim_v);
  if (blocks && c.page_tokens < 16)
    fail(ErrorKind::unsupported, "a q8_0 cache on the GPU needs pages of 16 tokens or more, not {}",
         c.page_tokens);
}

}  // namespace

DeviceKv DeviceKv::at(Address base, const kv::KvConfig& config) {
  return {base, base + device_kv_bytes(config, kv::Part::K), config};
}
Address DeviceKv::layer(kv::Part part, int layer) const {
  const int dim = part == kv::Part::K ? config.head_dim_k : config.head_dim_v;
  return (part == kv::Part::K ? k : v) + uint64_t(kv::row_bytes(config.form, dim)) *
                                             uint64_t(config.page_tokens) * uint64_t(config.kv_heads) *
                                             uint64_t(config.pages) * uint64_t(layer);
}
uint64_t device_kv_bytes(const kv::KvConfig& c, kv::Part part) {
  const int64_t row = kv::row_bytes(c.form, part == kv::Part::K ? c.head_dim_k : c.head_dim_v);
  return uint64_t(round_up(row * c.page_tokens * c.kv_heads * c.pages * c.layers, 256));
}

struct AttentionEngine::Tiling {
  int decode_vectors = 8, decode_warps = 0, decode_stages = 0, decode_tile = 16;
  unsigned decode_shared = 0;
  int shared_vectors = 0, shared_joined = 0;  // of SHARED=1; 0: it is not used
  unsigned shared_shared = 0;
  bool hopper = false;  // the prompt kernel is attention_prompt_sm90.cu
  int prompt_warps = 8, prompt_tile = 64, prompt_stages = 2, prompt_cluster = 1;
  int prompt_vectors() const { return prompt_warps * 16 * prompt_cluster; }
  unsigned prompt_shared = 0;
};

AttentionEngine::Tiling AttentionEngine::tiling(const DeviceFacts& facts, const kv::KvConfig& c,
                                                const AttentionKind& kind, const AttentionTuning& tuning) {
  Tiling t;
  const auto shared = int64_t(facts.shared_per_block);
  const int tile_row = shared_row(c.head_dim_k) + shared_row(c.head_dim_v);
  const int group = kind.heads / c.kv_heads;
  // Two columns of vectors double the registers of queries and sums, which heads of 256 do not leave.
  t.decode_vectors = group > 8 && c.head_dim_v <= 128 && c.head_dim_k <= 128 ? 16 : 8;
  if (tuning.decode_tile > 0) t.decode_tile = tuning.decode_tile;
  const bool blocks = c.form == kv::KvForm::q8_0 || c.form == kv::KvForm::e4m3;
  // Codes are fetched as they are, in rows of an odd number of 16-byte chunks too; scales follow them.
  const int dims = c.head_dim_k + c.head_dim_v;
  const int code_row = shared_row(c.head_dim_k / 2) + shared_row(c.head_dim_v / 2);
  const int tile_bytes =
      t.decode_tile * (blocks ? code_row + (c.form == kv::KvForm::q8_0 ? dims / 16 : 0) : tile_row);
  // The states of the warps are joined beside the tiles. Eight warps hide each other's latencies; large heads
  // leave room for fewer.
  const int out_row = (c.head_dim_v + 4) * 4;
  const auto decode_bytes = [&](int warps, int stages) {
    return int64_t{warps} * (stages * tile_bytes + t.decode_vectors * out_row) + 2048;
  };
  t.decode_warps = 8;
  while (t.decode_warps > 1 && decode_bytes(t.decode_warps, 2) > shared) t.decode_warps /= 2;
  t.decode_stages = 2;
  while (t.decode_stages < 4 && decode_bytes(t.decode_warps, t.decode_stages + 1) <= shared)
    ++t.decode_stages;
  if (tuning.decode_warps > 0) t.decode_warps = tuning.decode_warps;
  if (tuning.decode_stages > 0) t.decode_stages = tuning.decode_stages;
  if (decode_bytes(t.decode_warps, t.decode_stages) > shared)
    fail(ErrorKind::unsupported, "attention needs {} bytes of shared memory per block; {} has {}",
         decode_bytes(t.decode_warps, t.decode_stages), facts.name, shared);
  t.decode_shared = unsigned(decode_bytes(t.decode_warps, t.decode_stages) - 2048);

  // Rows that share pages: as many vectors as the registers of their sums allow.
  t.shared_vectors = tuning.share ? (c.head_dim_v <= 128 && c.head_dim_k <= 256 ? 32 : 16) : 0;
  const auto gather_bytes = [&] {
    return int64_t{t.decode_warps} * t.decode_stages * tile_bytes +
           t.decode_warps * t.shared_joined * out_row + t.shared_vectors * shared_row(c.head_dim_k);
  };
  t.shared_joined = std::min(t.shared_vectors, 16);
  if (gather_bytes() + 4096 > shared) t.shared_joined = 8;
  if (gather_bytes() + 4096 > shared || group * 2 > t.shared_vectors) t.shared_vectors = 0;
  t.shared_shared = unsigned(gather_bytes());

  t.hopper = facts.capability == 90 && !tuning.plain_prompt && !blocks && !kind.masked &&
             c.head_dim_k == c.head_dim_v && (c.head_dim_k == 64 || c.head_dim_k == 128) &&
             c.page_tokens >= 16 && group <= 128 &&
             c.pages * c.layers * c.kv_heads * c.page_tokens < int64_t{1} << 31;
  if (t.hopper) {
    if (tuning.prompt_stages > 0) t.prompt_stages = tuning.prompt_stages;
    if (tuning.prompt_cluster > 0) t.prompt_cluster = tuning.prompt_cluster;
    t.prompt_shared = unsigned(t.prompt_stages * 2 * kHopperTile * c.head_dim_k * 2);
    return t;
  }
  const bool query_shared = c.head_dim_k > 128;  // kQueryShared of attention_prompt.cu
  t.prompt_tile = c.head_dim_k > 128 || c.head_dim_v > 128 ? 32 : 64;
  const auto prompt_bytes = [&] {
    return 2 * t.prompt_tile * tile_row + (query_shared ? t.prompt_warps * c.head_dim_k * 32 : 0);
  };
  if (prompt_bytes() > shared && t.prompt_tile == 64) t.prompt_tile = 32;
  if (prompt_bytes() > shared) t.prompt_warps = 4;
  if (tuning.prompt_warps > 0) t.prompt_warps = tuning.prompt_warps;
  if (tuning.prompt_tile > 0) t.prompt_tile = tuning.prompt_tile;
  t.prompt_shared = unsigned(prompt_bytes());
  return t;
}

namespace {

// Elements that one thread of rope_kv_append.cu takes: the largest piece up to 8 that no part of a head cuts
// in two.
int append_piece(const kv::KvConfig& c, const RopeKind& rope) {
  const bool adjacent = rope.pairing == program::RopePairing::adjacent;
  const auto bits = unsigned(adjacent ? rope.rotary_dim : rope.rotary_dim / 2) |
                    unsigned(c.head_dim_k - rope.rotary_dim) | unsigned(c.head_dim_v) | 8;
  return 1 << std::countr_zero(bits);
}

void add_common(Variant& v, const kv::KvConfig& c, const AttentionKind& kind) {
  v.defines = {define("DIM_K", c.head_dim_k),        define("DIM_V", c.head_dim_v),
               define("KV_HEADS", c.kv_heads),       define("GROUP", kind.heads / c.kv_heads),
               define("PAGE", c.page_tokens),        define("CACHE_FORM", form_number(c.form)),
               define("SOFTCAP", kind.softcap != 0), define("ALIBI", kind.alibi),
               define("SINKS", kind.sinks)};
}

}  // namespace

Variant AttentionEngine::decode_variant(const DeviceFacts& facts, const kv::KvConfig& c,
                                        const AttentionKind& kind, const AttentionTuning& tuning,
                                        bool shared) {
  const Tiling t = tiling(facts, c, kind, tuning);
  Variant v{"attention_decode.cu", {}};
  add_common(v, c, kind);
  v.defines.push_back(define("VECTORS", shared ? t.shared_vectors : t.decode_vectors));
  if (shared)
    v.defines.push_back(define("SHARED", 1)), v.defines.push_back(define("JOINED", t.shared_joined));
  v.defines.push_back(define("WARPS", t.decode_warps));
  v.defines.push_back(define("STAGES", t.decode_stages));
  v.defines.push_back(define("TILE", t.decode_tile));
  return v;
}

Variant AttentionEngine::merge_variant(const kv::KvConfig& c, const AttentionKind& kind) {
  return {"attention_merge.cu",
          {define("DIM_V", c.head_dim_v), define("HEADS", kind.heads), define("SINKS", kind.sinks)}};
}

Variant AttentionEngine::prompt_variant(const DeviceFacts& facts, const kv::KvConfig& c,
                                        const AttentionKind& kind, const AttentionTuning& tuning) {
  const Tiling t = tiling(facts, c, kind, tuning);
  Variant v{t.hopper ? "attention_prompt_sm90.cu" : "attention_prompt.cu", {}};
  add_common(v, c, kind);
  if (t.hopper) {
    v.defines.push_back(define("DIM", c.head_dim_k));
    v.defines.push_back(define("CAUSAL", kind.causal));
    v.defines.push_back(define("WINDOW", kind.window > 0));
    v.defines.push_back(define("STAGES", t.prompt_stages));
    if (t.prompt_cluster > 1) v.defines.push_back(define("CLUSTER", t.prompt_cluster));
    return v;
  }
  v.defines.push_back(define("CAUSAL", kind.causal));
  v.defines.push_back(define("WINDOW", kind.window > 0));
  if (kind.masked) v.defines.push_back(define("CUSTOM_MASK", 1));
  v.defines.push_back(define("WARPS", t.prompt_warps));
  v.defines.push_back(define("TILE", t.prompt_tile));
  return v;
}

Variant AttentionEngine::append_variant(const kv::KvConfig& c, const RopeKind& rope, int heads) {
  return {
      "rope_kv_append.cu",
      {define("DIM_K", c.head_dim_k), define("DIM_V", c.head_dim_v), define("KV_HEADS", c.kv_heads),
       define("HEADS", heads), define("PAGE", c.page_tokens), define("CACHE_FORM", form_number(c.form)),
       define("ROTARY", rope.rotary_dim), define("ADJACENT", rope.pairing == program::RopePairing::adjacent),
       define("VEC", append_piece(c, rope))}};
}

std::vector<Variant> AttentionEngine::variants(const DeviceFacts& facts, const kv::KvConfig& c,
                                               std::span<const AttentionKind> kinds,
                                               std::span<const RopeKind> ropes,
                                               const AttentionTuning& tuning) {
  check_form(c);
  std::vector<Variant> all;
  const auto add = [&](Variant v) {
    if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
  };
  for (const AttentionKind& kind : kinds) {
    if (kind.causal) {
      add(decode_variant(facts, c, kind, tuning)), add(merge_variant(c, kind));
      if (tiling(facts, c, kind, tuning).shared_vectors > 0)
        add(decode_variant(facts, c, kind, tuning, true));
    }
    add(prompt_variant(facts, c, kind, tuning));
    for (const RopeKind& rope : ropes) add(append_variant(c, rope, rope.rotary_dim == 0 ? 0 : kind.heads));
  }
  return all;
}

std::vector<ScheduleShape> AttentionEngine::shapes(const DeviceFacts& facts, const kv::KvConfig& c,
                                                   std::span<const AttentionKind> kinds,
                                                   const AttentionTuning& tuning) {
  std::vector<ScheduleShape> all;
  for (const AttentionKind& kind : kinds) {
    const Tiling t = tiling(facts, c, kind, tuning);
    all.push_back({.mask = {kind.heads, c.kv_heads, kind.window, kind.causal},
                   .decode_vectors = t.decode_vectors,
                   .prompt_vectors = t.prompt_vectors(),
                   .shared_vectors = kind.causal ? t.shared_vectors : 0,
                   .page_tokens = c.page_tokens,
                   .prompt_masks = kind.masked});
  }
  return all;
}

AttentionEngine::Sizes AttentionEngine::sizes(const DeviceFacts& facts, const kv::KvConfig& c,
                                              std::span<const AttentionKind> kinds,
                                              const AttentionLimits& l) {
  Sizes s;
  s.state_parts =
      most_chunks(l.decode_rows, std::min(l.decode_rows * l.longest, l.table_pages * c.page_tokens * 2));
  uint64_t bytes =
      sizeof(PlanHead) * kinds.size() + uint64_t(l.rows + l.table_pages + l.mask_words) * 4 + 4 * kAlignment;
  int heads = 0;
  for (const ScheduleShape& shape : shapes(facts, c, kinds, {.prompt_cluster = 1, .share = true})) {
    heads = std::max(heads, shape.mask.heads);
    const int64_t group = shape.mask.heads / shape.mask.kv_heads;
    const int64_t prompt_items = (l.rows / (shape.prompt_vectors / group) + l.sequences) * c.kv_heads;
    bytes +=
        uint64_t((l.decode_rows + s.state_parts + l.decode_rows + prompt_items) * kRecord + 8 * kAlignment);
    if (shape.shared_vectors > 0) bytes += uint64_t(s.state_parts) * (kRecord + 4);
    if (shape.prompt_masks) bytes += uint64_t(prompt_items) * sizeof(PromptMask);
  }
  s.plan = uint64_t(round_up(int64_t(bytes), 256));
  s.states = uint64_t(s.state_parts) * uint64_t(heads) * uint64_t(c.head_dim_v) * 4;
  s.sums = uint64_t(s.state_parts) * uint64_t(heads) * 8;
  return s;
}

uint64_t AttentionEngine::workspace_bytes(const DeviceFacts& facts, const kv::KvConfig& c,
                                          std::span<const AttentionKind> kinds,
                                          const AttentionLimits& limits) {
  const Sizes s = sizes(facts, c, kinds, limits);
  return s.plan + s.states + s.sums;
}

AttentionEngine::AttentionEngine(const Device& device, KernelCache& cache, const kv::KvConfig& config,
                                 std::vector<AttentionKind> kinds, const AttentionLimits& limits,
                                 const AttentionTuning& tuning)
    : cache_(cache), config_(config), kinds_(std::move(kinds)), limits_(limits), tuning_(tuning) {
  check_form(config);
  const DeviceFacts& facts = device.facts();
  for (const AttentionKind& kind : kinds_)
    if (kind.heads <= 0 || config.kv_heads <= 0 || kind.heads % config.kv_heads != 0 ||
        kind.heads / config.kv_heads > 64)
      fail(ErrorKind::unsupported,
           "attention with {} heads over {} KV heads: heads must be a multiple of KV heads, at most 64 times "
           "as many",
           kind.heads, config.kv_heads);
  const uint64_t rows_per_layer =
      uint64_t(config.pages) * uint64_t(config.kv_heads) * uint64_t(config.page_tokens);
  if (rows_per_layer >= uint64_t{1} << 31)
    fail(ErrorKind::unsupported, "a KV cache of {} pages has {} rows per layer; the kernels count up to 2^31",
         config.pages, rows_per_layer);
  sizes_ = sizes(facts, config_, kinds_, limits_);
  plan_memory_ = Buffer(device, size_t(sizes_.plan));
  if (sizes_.states > 0) {
    states_ = Buffer(device, size_t(sizes_.states));
    sums_ = Buffer(device, size_t(sizes_.sums));
  }
  for (Staging& s : staging_) {
    s.memory = PinnedBuffer(device, size_t(sizes_.plan));
    s.copied = std::make_unique<Event>(device);
  }
  const std::vector<ScheduleShape> all = shapes(facts, config_, kinds_, tuning_);
  for (size_t i = 0; i < kinds_.size(); ++i) {
    const AttentionKind& kind = kinds_[i];
    const Tiling t = tiling(facts, config_, kind, tuning_);
    Kernels k;
    if (kind.causal) {
      k.decode = cache_.get(decode_variant(facts, config_, kind, tuning_), "attention_decode");
      k.merge = cache_.get(merge_variant(config_, kind), "attention_merge");
      k.shares = t.shared_vectors > 0;
      if (k.shares)
        k.shared = cache_.get(decode_variant(facts, config_, kind, tuning_, true), "attention_decode");
    }
    k.prompt = cache_.get(prompt_variant(facts, config_, kind, tuning_), "attention_prompt");
    k.decode_shape.block = unsigned(t.decode_warps * 32), k.decode_shape.shared_bytes = t.decode_shared;
    k.prompt_box = t.hopper ? std::min(config_.page_tokens, kHopperTile / t.prompt_cluster) : 0;
    k.prompt_shape.block = t.hopper ? kHopperThreads : unsigned(t.prompt_warps * 32),
    k.prompt_shape.shared_bytes = t.prompt_shared;
    k.decode_shape.grid[0] = k.prompt_shape.grid[0] = unsigned(facts.multiprocessors);
    k.shared_shape = k.decode_shape, k.shared_shape.shared_bytes = t.shared_shared;
    if (t.hopper) {
      k.prompt_shape.cluster = unsigned(t.prompt_cluster);
      k.prompt_shape.grid[0] -= k.prompt_shape.grid[0] % k.prompt_shape.cluster;
    }
    if (tuning.decode_blocks > 0) k.decode_shape.grid[0] = unsigned(tuning.decode_blocks);
    const auto same = [&](const ScheduleShape& s) {
      return s.mask.heads == all[i].mask.heads && s.mask.window == all[i].mask.window &&
             s.mask.causal == all[i].mask.causal && s.prompt_masks == all[i].prompt_masks;
    };
    ScheduleShape shape = all[i];
    shape.prompt_vectors = t.prompt_vectors();
    if (!k.shares) shape.shared_vectors = 0;
    k.schedule = int(std::find_if(shapes_.begin(), shapes_.end(), same) - shapes_.begin());
    if (size_t(k.schedule) == shapes_.size()) shapes_.push_back(shape);
    kernels_.push_back(k);
  }
}

void AttentionEngine::plan(const attention::AttentionPlan& plan, std::span<const RowClass> classes,
                           int64_t padded_rows) {
  current_ = (current_ + 1) % kStaging;
  Staging& staging = staging_[current_];
  if (staging.pending) staging.copied->synchronize(), staging.pending = false;
  std::byte* const base = staging.memory.data();
  size_t at = sizeof(PlanHead) * shapes_.size();
  const auto reserve = [&](size_t bytes, const char* what) {
    const size_t begin = at;
    at = size_t(round_up(int64_t(at + bytes), kAlignment));
    if (at > staging.memory.size())
      fail(ErrorKind::invalid_argument,
           "attention plan: {} do not fit: the step needs more than {} bytes, which was sized for {} rows, "
           "{} decode rows "
           "and {} pages",
           what, staging.memory.size(), limits_.rows, limits_.decode_rows, limits_.table_pages);
    return begin;
  };

  int64_t rows = padded_rows;
  for (const attention::QueryRows& s : plan.sequences) rows = std::max(rows, s.row_begin + s.rows);
  if (rows > limits_.rows)
    fail(ErrorKind::invalid_argument, "attention plan: {} rows, at most {} were foreseen", rows,
         limits_.rows);
  const size_t slots_at = reserve(size_t(rows) * 4, "rows");
  auto* slots = reinterpret_cast<int32_t*>(base + slots_at);
  std::fill_n(slots, rows, -1);

  size_t pages = 0, words = 0;
  table_starts_.clear(), mask_starts_.clear();
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const attention::QueryRows& s = plan.sequences[i];
    if (s.rows < 0 || s.row_begin < 0 || s.position < 0 || s.kv_len < s.position + s.rows ||
        s.kv_len > limits_.longest)
      fail(ErrorKind::invalid_argument,
           "attention plan: sequence {} has {} rows from position {} and {} tokens in the cache (at most {})",
           i, s.rows, s.position, s.kv_len, limits_.longest);
    const auto needed = size_t(ceil_div(s.kv_len, config_.page_tokens));
    if (s.block_table.size() < needed)
      fail(ErrorKind::invalid_argument, "attention plan: sequence {} has {} tokens but only {} pages of {}",
           i, s.kv_len, s.block_table.size(), config_.page_tokens);
    table_starts_.push_back(int32_t(pages));
    pages += needed;
    attention::check_mask(s, i);
    mask_starts_.push_back(int32_t(words));
    words += s.mask.size();
  }
  if (words > size_t(limits_.mask_words))
    fail(ErrorKind::invalid_argument, "attention plan: masks of {} words, at most {} were foreseen", words,
         limits_.mask_words);
  const size_t masks_at = reserve(words * 4, "masks");
  for (size_t i = 0; i < plan.sequences.size(); ++i)
    if (const auto mask = plan.sequences[i].mask; !mask.empty())
      std::memcpy(base + masks_at + size_t(mask_starts_[i]) * 4, mask.data(), mask.size() * 4);
  const size_t tables_at = reserve(pages * 4, "pages");
  auto* tables = reinterpret_cast<int32_t*>(base + tables_at);
  const int page_shift = std::countr_zero(unsigned(config_.page_tokens));
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const attention::QueryRows& s = plan.sequences[i];
    const auto needed = size_t(ceil_div(s.kv_len, config_.page_tokens));
    int32_t* const table = tables + table_starts_[i];
    uint32_t largest = 0;
    for (size_t p = 0; p < needed; ++p) {
      table[p] = s.block_table[p];
      largest = std::max(largest, uint32_t(table[p]));
    }
    if (needed > 0 && largest >= uint64_t(config_.pages))
      for (size_t p = 0; p < needed; ++p)
        if (uint64_t(uint32_t(table[p])) >= uint64_t(config_.pages))
          fail(ErrorKind::invalid_argument, "attention plan: page {} of sequence {} is {}, the pool has {}",
               p, i, table[p], config_.pages);
    for (int32_t r = 0; r < s.rows; ++r) {
      const int64_t token = s.position + r;
      slots[s.row_begin + r] =
          int32_t(table[token >> page_shift] * config_.page_tokens + (token & (config_.page_tokens - 1)));
    }
  }

  has_decode_ = has_prompt_ = has_chunks_ = has_shared_ = false;
  planned_decode_rows_ = 0;
  for (size_t i = 0; i < shapes_.size(); ++i) {
    shapes_[i].forced_chunk = forced_chunk_;
    make_schedule(plan, classes, table_starts_, shapes_[i], schedule_, mask_starts_);
    if (schedule_.state_parts > sizes_.state_parts ||
        int64_t(schedule_.decode_rows.size()) > limits_.decode_rows)
      fail(ErrorKind::invalid_argument,
           "attention plan: {} decode rows in {} chunks; {} rows in {} chunks were foreseen",
           schedule_.decode_rows.size(), schedule_.state_parts, limits_.decode_rows, sizes_.state_parts);
    PlanHead head{};
    head.decode_items = int(schedule_.decode_items.size()),
    head.decode_rows = int(schedule_.decode_rows.size());
    head.prompt_items = int(schedule_.prompt_items.size()), head.rows = int(rows);
    const auto put = [&](const auto& records, const char* what) {
      const size_t bytes = records.size() * sizeof(records[0]), begin = reserve(bytes, what);
      if (bytes > 0) std::memcpy(base + begin, records.data(), bytes);
      return int(begin);
    };
    head.decode_items_at = put(schedule_.decode_items, "chunks");
    head.decode_rows_at = put(schedule_.decode_rows, "decode rows");
    head.prompt_items_at = put(schedule_.prompt_items, "prompt tiles");
    head.shared_items = int(schedule_.shared_items.size());
    head.shared_items_at = put(schedule_.shared_items, "shared chunks");
    head.shared_rows_at = put(schedule_.shared_rows, "rows of shared chunks");
    head.prompt_masks_at = put(schedule_.prompt_masks, "prompt masks");
    head.masks_at = int(masks_at);
    head.tables_at = int(tables_at), head.row_slots_at = int(slots_at);
    std::memcpy(base + i * sizeof(PlanHead), &head, sizeof(PlanHead));
    has_decode_ = has_decode_ || head.decode_rows > 0;
    has_prompt_ = has_prompt_ || head.prompt_items > 0;
    has_chunks_ = has_chunks_ || schedule_.state_parts > 0;
    has_shared_ = has_shared_ || head.shared_items > 0;
    planned_decode_rows_ = std::max<int64_t>(planned_decode_rows_, head.decode_rows);
  }
  plan_bytes_ = at;
}

void AttentionEngine::upload(Stream& stream) {
  Staging& staging = staging_[current_];
  stream.upload(plan_memory_.address(), staging.memory.data(), plan_bytes_);
  staging.copied->record(stream);
  staging.pending = true;
}

const AttentionEngine::Append& AttentionEngine::append_kernel(const RopeKind& rope, int heads) {
  for (const Append& a : appends_)
    if (a.rope == rope && a.heads == heads) return a;
  if (rope.rotary_dim < 0 || rope.rotary_dim > config_.head_dim_k || rope.rotary_dim % 2 != 0)
    fail(ErrorKind::unsupported,
         "rotating {} elements of heads of {}: an even number of at most the head is needed", rope.rotary_dim,
         config_.head_dim_k);
  const bool half = rope.pairing == program::RopePairing::half;
  if (config_.form == kv::KvForm::q8_0 &&
      (rope.rotary_dim % (half ? 64 : 32) != 0 || (config_.head_dim_k - rope.rotary_dim) % 32 != 0))
    fail(ErrorKind::unsupported,
         "rotating {} of {} elements cuts blocks of a q8_0 cache; use a cache of bf16 or f16",
         rope.rotary_dim, config_.head_dim_k);
  Append a{rope, heads, cache_.get(append_variant(config_, rope, heads), "rope_kv_append"), 0};
  const int piece = append_piece(config_, rope);
  const int rotated =
      rope.pairing == program::RopePairing::adjacent ? rope.rotary_dim / piece : rope.rotary_dim / 2 / piece;
  const int head_units = rotated + (config_.head_dim_k - rope.rotary_dim) / piece;
  const int units = (heads + config_.kv_heads) * head_units + config_.kv_heads * (config_.head_dim_v / piece);
  a.blocks = unsigned(ceil_div(units, kAppendThreads));
  return appends_.emplace_back(std::move(a));
}

void AttentionEngine::append(Stream& stream, const DeviceKv& kv, const AppendCall& call) {
  if (call.rows == 0) return;
  const Append& append = append_kernel(call.rope, call.q ? call.heads : 0);
  LaunchShape shape;
  shape.block = kAppendThreads;
  shape.grid[0] = unsigned(call.rows), shape.grid[1] = append.blocks;
  shape.overlap_previous = call.overlap_previous;
  const Address plan = plan_memory_.address();
  stream.launch(append.kernel, shape, call.q, call.q_stride, call.k, call.k_stride, call.v, call.v_stride,
                call.q_out, call.q_out_stride, kv.layer(kv::Part::K, call.layer),
                kv.layer(kv::Part::V, call.layer), call.angles, plan, plan);
}

const AttentionEngine::Maps& AttentionEngine::maps(const DeviceKv& kv, int box_tokens) {
  if (maps_.k_address == kv.k && maps_.v_address == kv.v && maps_.box_tokens == box_tokens) return maps_;
  const auto encode = driver::api().tensor_map_tiled;
  if (!encode)
    fail(ErrorKind::unsupported, "the NVIDIA driver has no cuTensorMapEncodeTiled; a newer driver does");
  // Rows of all layers, read in boxes of a page (at most a tile) by 64 elements.
  const kv::KvConfig& c = config_;
  const auto map = [&](Address data) {
    driver::TensorMap m;
    const uint64_t dims[2] = {uint64_t(c.head_dim_k),
                              uint64_t(c.pages * c.layers * c.kv_heads * c.page_tokens)};
    const uint64_t strides[1] = {uint64_t(c.head_dim_k) * 2};
    const uint32_t box[2] = {64, uint32_t(box_tokens)}, steps[2] = {1, 1};
    constexpr int kPromoteTo256Bytes = 3;
    driver::check(encode(&m, c.form == kv::KvForm::f16 ? driver::kTensorF16 : driver::kTensorBf16, 2,
                         reinterpret_cast<void*>(data), dims, strides, box, steps, 0, driver::kSwizzle128,
                         kPromoteTo256Bytes, 0),
                  "describing the KV cache to the copy engine");
    return m;
  };
  maps_ = {kv.k, kv.v, box_tokens, map(kv.k), map(kv.v)};
  return maps_;
}

void AttentionEngine::run(Stream& stream, const DeviceKv& kv, const AttentionCall& call) {
  const AttentionKind& kind = kinds_[size_t(call.kind)];
  const Kernels& k = kernels_[size_t(call.kind)];
  const Address plan = plan_memory_.address(), head = plan + uint64_t(k.schedule) * sizeof(PlanHead);
  const Address cache_k = kv.layer(kv::Part::K, call.layer), cache_v = kv.layer(kv::Part::V, call.layer);
  const Address states = states_.address(), sums = sums_.address();
  bool overlap = call.overlap_previous;
  if (call.decode && call.decode_rows > 0) {
    if (call.shared && k.shares) {
      LaunchShape shape = k.shared_shape;
      shape.overlap_previous = overlap;
      stream.launch(k.shared, shape, call.q, call.q_stride, call.y, call.y_stride, cache_k, cache_v, plan,
                    head, states, sums, call.lse, call.sinks, call.slopes, kind.scale, kind.softcap);
    }
    LaunchShape shape = k.decode_shape;
    shape.overlap_previous = overlap;
    stream.launch(k.decode, shape, call.q, call.q_stride, call.y, call.y_stride, cache_k, cache_v, plan, head,
                  states, sums, call.lse, call.sinks, call.slopes, kind.scale, kind.softcap);
    if (call.merge) {
      LaunchShape merge;
      merge.block = kMergeThreads;
      merge.grid[0] = unsigned(kind.heads), merge.grid[1] = unsigned(call.decode_rows);
      merge.overlap_previous = overlap;
      stream.launch(k.merge, merge, call.y, call.y_stride, plan, head, states, sums, call.lse, call.sinks);
    }
  }
  if (call.prompt) {
    LaunchShape shape = k.prompt_shape;
    shape.overlap_previous = overlap;
    if (k.prompt_box > 0) {
      const Maps& m = maps(kv, k.prompt_box);
      const int64_t first_row = int64_t{call.layer} * config_.pages * config_.kv_heads * config_.page_tokens;
      stream.launch(k.prompt, shape, call.q, call.q_stride, call.y, call.y_stride, m.k, m.v, first_row, plan,
                    head, call.lse, call.sinks, call.slopes, kind.scale, kind.softcap, kind.window);
      return;
    }
    stream.launch(k.prompt, shape, call.q, call.q_stride, call.y, call.y_stride, cache_k, cache_v, plan, head,
                  call.lse, call.sinks, call.slopes, kind.scale, kind.softcap, kind.window);
  }
}

namespace {

// Shapes that models have, and every variant at least once.
std::vector<Variant> stock(int capability, std::string_view source) {
  DeviceFacts facts;
  facts.capability = capability;
  // Per block with opt-in (CUDA C++ Programming Guide, technical specifications per compute capability).
  facts.shared_per_block = capability >= 90 ? 232448 : capability == 80 ? 166912 : 101376;
  struct Stock {
    kv::KvConfig kv;
    AttentionKind kind;
    RopeKind rope;
  };
  const auto cache = [](int kv_heads, int dim, int page, kv::KvForm form = kv::KvForm::bf16) {
    return kv::KvConfig{.layers = 1,
                        .kv_heads = kv_heads,
                        .head_dim_k = dim,
                        .head_dim_v = dim,
                        .page_tokens = page,
                        .form = form,
                        .pages = 1};
  };
  const auto adjacent = program::RopePairing::adjacent;
  const Stock all[] = {
      {cache(8, 128, 32), {.heads = 32}, {.rotary_dim = 128}},                                // Llama 3
      {cache(4, 128, 16), {.heads = 28}, {.rotary_dim = 128}},                                // Qwen 2.5 7B
      {cache(8, 64, 32), {.heads = 64, .window = 128, .sinks = true}, {.rotary_dim = 64}},    // GPT-OSS
      {cache(4, 256, 32), {.heads = 8, .window = 4096, .softcap = 50}, {.rotary_dim = 256}},  // Gemma 2
      {cache(1, 256, 64), {.heads = 16}, {.rotary_dim = 64}},
      {cache(32, 80, 1), {.heads = 32}, {.rotary_dim = 32}},  // Phi-2
      {cache(2, 96, 32, kv::KvForm::f16), {.heads = 32}, {.rotary_dim = 96, .pairing = adjacent}},
      {cache(8, 128, 32), {.heads = 32, .alibi = true}, {}},
      {cache(8, 128, 32), {.heads = 32, .masked = true}, {}},
      {cache(12, 64, 32), {.heads = 12, .causal = false}, {}},
      {cache(8, 128, 32, kv::KvForm::q8_0), {.heads = 32}, {.rotary_dim = 128}},
      {cache(8, 128, 32, kv::KvForm::e4m3), {.heads = 32}, {.rotary_dim = 128}},
      {cache(4, 256, 16, kv::KvForm::q8_0), {.heads = 8, .window = 4096, .softcap = 50}, {.rotary_dim = 256}},
  };
  std::vector<Variant> found;
  for (const Stock& s : all)
    for (Variant& v :
         AttentionEngine::variants(facts, s.kv, {&s.kind, 1}, {&s.rope, 1},
                                   {.share = true, .plain_prompt = source == "attention_prompt.cu"}))
      if (v.source == source && std::find(found.begin(), found.end(), v) == found.end())
        found.push_back(std::move(v));
  return found;
}

}  // namespace

std::vector<Variant> attention_decode_variants(int capability) {
  return stock(capability, "attention_decode.cu");
}
std::vector<Variant> attention_merge_variants(int capability) {
  return stock(capability, "attention_merge.cu");
}
std::vector<Variant> attention_prompt_variants(int capability) {
  return stock(capability, "attention_prompt.cu");
}
std::vector<Variant> attention_prompt_sm90_variants(int capability) {
  return stock(capability, "attention_prompt_sm90.cu");
}
std::vector<Variant> rope_kv_append_variants(int capability) {
  return stock(capability, "rope_kv_append.cu");
}

}  // namespace cairn::cuda
