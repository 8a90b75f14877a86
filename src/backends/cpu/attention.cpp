#include "backends/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>

#include "backends/cpu/attention_tiles.h"
#include "base/checked.h"
#include "base/cpu_features.h"
#include "base/error.h"
#include "base/float16.h"

namespace cairn::cpu {
namespace {

using attention::kMergeTokens;
static_assert(attention::kStripVectors == kStripVectors);
using attention::kTileTokens;

constexpr int kMostVectors =
    256;  // query vectors that share a packed tile: packing is then a tenth of the work
constexpr int kMostPadding = 32;  // the largest dim_multiple
constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr float kLog2e = std::numbers::log2e_v<float>;

const TileKernels& kernels_for(kv::KvForm form) {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::amx:
      if (form != kv::KvForm::f32) return kAttentionAmx;
      return kAttentionAvx512;
    case Isa::vnni:
      if (form != kv::KvForm::f32) return kAttentionVnni;
      return kAttentionAvx512;
    case Isa::avx512: return kAttentionAvx512;
    case Isa::avx2: return kAttentionAvx2;
    case Isa::scalar: break;
  }
#endif
  (void)form;
  return kAttentionScalar;
}

int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }

int vector_limit(const AttentionParams& p) { return std::max(kMostVectors, p.heads / p.kv_heads); }

// Vectors whose states may wait to be joined: those of one row's heads, or every thread's share of pieces of
// 32, over the whole length.
int64_t state_limit(const AttentionParams& p, int64_t kv_tokens, int threads) {
  const int64_t row = p.kv_heads * round_up(p.heads / p.kv_heads, kStripVectors);
  return std::max(row, 128 * int64_t{threads}) * ceil_div(std::max<int64_t>(kv_tokens, 1), kMergeTokens);
}

// The softmax state of some query vectors over a range of tokens: m in units of ln 2.
struct State {
  float* o;  // [vectors][stride]
  float* m;
  float* l;

  void clear(int vectors, int stride) const {
    std::fill_n(o, int64_t{vectors} * stride, 0.0f);
    std::fill_n(m, vectors, kNone);
    std::fill_n(l, vectors, 0.0f);
  }
};

// total becomes the state over its tokens and part's. With nothing in total it becomes part, to the bit.
void join(const State& total, const State& part, int vectors, int stride) {
  for (int v = 0; v < vectors; ++v) {
    const float most = std::max(total.m[v], part.m[v]);
    const float a = total.m[v] == most ? 1.0f : std::exp2(total.m[v] - most);
    const float b = part.m[v] == most ? 1.0f : std::exp2(part.m[v] - most);
    total.m[v] = most;
    total.l[v] = a * total.l[v] + b * part.l[v];
    float* to = total.o + int64_t{v} * stride;
    const float* from = part.o + int64_t{v} * stride;
    for (int d = 0; d < stride; ++d) to[d] = a * to[d] + b * from[d];
  }
}

// One thread's working memory.
struct Bench {
  std::byte *q, *k, *v;
  const std::byte* zeros;  // a stored row
  float *scores, *turned;
  State total, part;

  static int64_t bytes(const AttentionParams& p, std::byte* memory = nullptr, Bench* bench = nullptr) {
    const int64_t vectors = round_up(vector_limit(p), kStripVectors);
    const int64_t dim_k = round_up(p.head_dim_k, kMostPadding), dim_v = round_up(p.head_dim_v, kMostPadding);
    int64_t used = 0;
    const auto take = [&](int64_t size) {
      std::byte* at = memory ? memory + used : nullptr;
      used += aligned(size);
      return at;
    };
    const auto floats = [&](int64_t count) { return reinterpret_cast<float*>(take(count * 4)); };
    Bench b{};
    b.q = take(vectors * dim_k * 4);
    b.k = take(kTileTokens * dim_k * 4);
    b.v = take(kTileTokens * dim_v * 4);
    b.zeros = take(std::max(dim_k, dim_v) * 4);
    b.scores = floats(kStripVectors * kTileTokens);
    b.turned = floats(kStripVectors * kTileTokens);
    for (State* state : {&b.total, &b.part})
      *state = {floats(vectors * dim_v), floats(vectors), floats(vectors)};
    if (bench) *bench = b;
    return used;
  }
};

class Call {
 public:
  Call(const AttentionParams& p, const attention::AttentionPlan& plan, const kv::KvPool& pool, int layer,
       const float* q, float* out, float* lse, const attention::WorkList& work, std::byte* states)
      : p_(p),
        plan_(plan),
        pool_(pool),
        layer_(layer),
        q_(q),
        out_(out),
        lse_(lse),
        work_(work),
        kernels_(kernels_for(pool.config().form)),
        group_(p.heads / p.kv_heads),
        dim_k_(int(round_up(p.head_dim_k, kernels_.dim_multiple))),
        dim_v_(int(round_up(p.head_dim_v, kernels_.dim_multiple))),
        states_(reinterpret_cast<float*>(states)),
        left_(new std::atomic<int>[work.joins.size()]) {
    for (size_t j = 0; j < work.joins.size(); ++j) left_[j] = work.joins[j].parts;
  }

  void run(Bench& bench) {
    for (;;) {
      const size_t next = next_.fetch_add(1, std::memory_order_relaxed);
      if (next >= work_.items.size()) return;
      const attention::WorkItem& item = work_.items[next];
      compute(item, bench);
      if (item.join < 0) {
        finish(item, bench.total);
        continue;
      }
      const attention::Join& whole = work_.joins[size_t(item.join)];
      const int vectors = item.kv_heads * strip_vectors(item);
      copy(bench.total, waiting(whole, item.part, vectors), vectors);
      if (left_[size_t(item.join)].fetch_sub(1, std::memory_order_acq_rel) > 1) continue;
      bench.total.clear(vectors, dim_v_);
      for (int part = 0; part < whole.parts; ++part)
        join(bench.total, waiting(whole, part, vectors), vectors, dim_v_);
      finish(item, bench.total);
    }
  }

 private:
  // Vectors of one KV head of an item, in whole strips; the item's state has those of its heads one after the
  // other.
  int strip_vectors(const attention::WorkItem& item) const {
    return int(round_up(int64_t{item.rows} * group_, kStripVectors));
  }

  State waiting(const attention::Join& whole, int part, int vectors) const {
    const int64_t first = whole.state + int64_t{part} * vectors;
    float* o = states_ + first * dim_v_;
    float* m = states_ + work_.state_vectors * dim_v_ + first;
    return {o, m, m + work_.state_vectors};
  }

  void copy(const State& from, const State& to, int vectors) const {
    std::copy_n(from.o, int64_t{vectors} * dim_v_, to.o);
    std::copy_n(from.m, vectors, to.m);
    std::copy_n(from.l, vectors, to.l);
  }

  // Pointers to the tile's stored rows; tokens outside [begin, end) read zeros.
  void tile_rows(kv::Part part, const attention::QueryRows& s, int kv_head, int64_t tile, int64_t begin,
                 int64_t end, const std::byte* zeros, const std::byte** rows) const {
    const int64_t page_tokens = pool_.config().page_tokens, row_bytes = pool_.row_bytes(part);
    int64_t t = tile;
    for (; t < std::min(begin, tile + kTileTokens); ++t) rows[t - tile] = zeros;
    for (; t < std::min(end, tile + kTileTokens);) {
      const std::byte* head = pool_.head(part, layer_, s.block_table[size_t(t / page_tokens)], kv_head);
      for (int64_t i = t % page_tokens; i < page_tokens && t < std::min(end, tile + kTileTokens); ++i, ++t)
        rows[t - tile] = head + i * row_bytes;
    }
    for (; t < tile + kTileTokens; ++t) rows[t - tile] = zeros;
  }

  // The rows of one head's tile.
  struct TileRows {
    const std::byte *k[kTileTokens], *v[kTileTokens];
  };
  void tile_rows(const attention::WorkItem& item, int head, int64_t tile, const std::byte* zeros,
                 TileRows& rows) const {
    const attention::QueryRows& s = plan_.sequences[size_t(item.sequence)];
    tile_rows(kv::Part::K, s, item.kv_head + head, tile, item.token_begin, item.token_end, zeros, rows.k);
    tile_rows(kv::Part::V, s, item.kv_head + head, tile, item.token_begin, item.token_end, zeros, rows.v);
  }

  // Leaves in bench.total the state of the item's vectors over the item's tokens.
  void compute(const attention::WorkItem& item, Bench& bench) {
    const attention::QueryRows& s = plan_.sequences[size_t(item.sequence)];
    const int vectors = item.rows * group_, padded = strip_vectors(item), all = padded * item.kv_heads;
    const int64_t strip_bytes = int64_t{kStripVectors} * dim_k_ * kernels_.element_bytes;
    const auto form = RowForm(pool_.config().form);

    const FewVectorKernels* few = vectors <= kStripVectors ? kernels_.few : nullptr;
    const auto pack_q = few ? few->pack_q : kernels_.pack_q;
    const auto pack_k = few ? few->pack_k : kernels_.pack_k;

    for (int first = 0; first < all; first += kStripVectors) {
      const float* rows[kStripVectors];
      for (int i = 0; i < kStripVectors; ++i) {
        const int vector = first % padded + i;
        const int64_t head = int64_t{item.kv_head + first / padded} * group_ + vector % group_;
        rows[i] =
            vector < vectors
                ? q_ + ((s.row_begin + item.row_begin + vector / group_) * p_.heads + head) * p_.head_dim_k
                : nullptr;
      }
      pack_q(rows, p_.head_dim_k, dim_k_, bench.q + first / kStripVectors * strip_bytes);
    }

    Masks masks;
    StripArgs args{};
    args.dim_k = dim_k_;
    args.dim_v = dim_v_;
    args.scale = p_.scale;
    args.scale_log2 = p_.scale * kLog2e;
    args.softcap = p_.softcap;
    args.scores = bench.scores;
    args.turned = bench.turned;
    args.form = form;
    args.k = bench.k;
    args.v = bench.v;
    args.vectors = std::min(vectors, kStripVectors);
    (few ? few->begin : kernels_.begin)(args);

    TileRows rows[2];
    TileRows *now = &rows[0], *next = &rows[1];
    tile_rows(item, 0, item.token_begin / kTileTokens * kTileTokens, bench.zeros, *next);

    bench.total.clear(all, dim_v_);
    bool first_part = true;
    for (int64_t begin = item.token_begin; begin < item.token_end;) {
      const int64_t end = std::min(item.token_end, (begin / kMergeTokens + 1) * kMergeTokens);
      const State& state = first_part ? bench.total : bench.part;
      if (!first_part) state.clear(all, dim_v_);
      for (int64_t tile = begin / kTileTokens * kTileTokens; tile < end; tile += kTileTokens)
        for (int h = 0; h < item.kv_heads; ++h) {
          const int tokens = int(std::min<int64_t>(end - tile, kTileTokens)), kv_head = item.kv_head + h;
          std::swap(now, next);
          const bool same_tile = h + 1 < item.kv_heads;
          tile_rows(item, same_tile ? h + 1 : 0, same_tile ? tile : tile + kTileTokens, bench.zeros, *next);
          // A mask of the rows' own leaves runs of tokens in the tile, which are taken in turns.
          const int turns = tile + kTileTokens > s.open_end() && !s.mask.empty() ? kTileTokens / 2 + 1 : 1;
          const auto set_strip = [&](int first, int turn) {
            args.vectors = std::min(kStripVectors, vectors - first);
            set_masks(item, s, kv_head, tile, first, turn, masks, args);
            const int64_t at = int64_t{h} * padded + first;
            args.q = bench.q + at / kStripVectors * strip_bytes;
            args.o = state.o + at * dim_v_;
            args.m = state.m + at;
            args.l = state.l + at;
            return args.tokens > 0;
          };
          args.next_k = next->k;
          args.next_v = next->v;
          const PackArgs keys{form, now->k, next->k, few != nullptr, tokens, p_.head_dim_k, dim_k_, bench.k};
          const PackArgs values{form,   now->v,        next->v, few != nullptr,
                                tokens, p_.head_dim_v, dim_v_,  bench.v};
          if (few) {  // the values are packed while the scores are on their way
            for (int turn = 0; turn < turns && set_strip(0, turn); ++turn) {
              if (turn == 0) pack_k(keys);
              few->scores(args);
              if (turn == 0) kernels_.pack_v(values);
              few->strip(args);
            }
            continue;
          }
          pack_k(keys);
          kernels_.pack_v(values);
          for (int first = 0; first < vectors; first += kStripVectors)
            for (int turn = 0; turn < turns && set_strip(first, turn); ++turn) kernels_.strip(args);
        }
      if (!first_part) join(bench.total, state, all, dim_v_);
      first_part = false;
      begin = end;
    }
    kernels_.end();
  }

  struct Masks {
    int from[kStripVectors], to[kStripVectors];
    float slopes[kStripVectors], offset[kStripVectors];
  };

  // What the strip's vectors, from `first` of a head's on, see of a tile: the run of tokens number `turn`.
  void set_masks(const attention::WorkItem& item, const attention::QueryRows& s, int kv_head, int64_t tile,
                 int first, int turn, Masks& masks, StripArgs& args) const {
    args.tokens = 0;
    for (int i = 0; i < kStripVectors; ++i) {
      masks.from[i] = masks.to[i] = 0;
      masks.slopes[i] = masks.offset[i] = 0;
      if (i >= args.vectors) continue;
      const int vector = first + i;
      const int64_t position = s.position + item.row_begin + vector / group_;
      const attention::Visible seen = attention::visible(p_.mask(), position, s.kv_len);
      masks.from[i] = int(std::clamp<int64_t>(seen.begin - tile, 0, kTileTokens));
      masks.to[i] = int(std::clamp<int64_t>(seen.end - tile, 0, kTileTokens));
      if (!s.mask.empty())
        find_run(s, item.row_begin + vector / group_, tile, turn, masks.from[i], masks.to[i]);
      if (masks.from[i] < masks.to[i]) args.tokens = std::max(args.tokens, masks.to[i]);
      if (p_.alibi_slopes) {
        masks.slopes[i] = p_.alibi_slopes[kv_head * group_ + vector % group_] * kLog2e;
        masks.offset[i] = float(tile - position);
      }
    }
    args.first = masks.from;
    args.last = masks.to;
    args.slopes = p_.alibi_slopes ? masks.slopes : nullptr;
    args.offset = masks.offset;
  }

  // Narrows tokens [from, to) of a tile to run number `turn` of those that the row's own mask leaves.
  static void find_run(const attention::QueryRows& s, int64_t row, int64_t tile, int turn, int& from,
                       int& to) {
    int end = from;
    for (int run = -1; run < turn; ++run) {
      from = end;
      while (from < to && s.masks(row, tile + from)) ++from;
      end = from;
      while (end < to && !s.masks(row, tile + end)) ++end;
    }
    to = end;
  }

  void finish(const attention::WorkItem& item, const State& state) const {
    const attention::QueryRows& s = plan_.sequences[size_t(item.sequence)];
    const int vectors = item.rows * group_;
    for (int i = 0; i < vectors * item.kv_heads; ++i) {
      const int vector = i % vectors, head = (item.kv_head + i / vectors) * group_ + vector % group_;
      const int64_t in_state = int64_t{i / vectors} * strip_vectors(item) + vector;
      const int64_t at = (s.row_begin + item.row_begin + vector / group_) * p_.heads + head;
      float m = state.m[in_state], l = state.l[in_state], weight = 1;
      if (p_.sinks) {
        const float sink = p_.sinks[head] * kLog2e, most = std::max(m, sink);
        weight = m == most ? 1.0f : std::exp2(m - most);
        l = weight * l + std::exp2(sink - most);
        m = most;
      }
      const float factor = m == kNone && l == 0 ? 0.0f : weight / l;  // nothing seen, unless it was NaN
      const float* o = state.o + in_state * dim_v_;
      // Adding zero turns -0 into 0: a row must not show whether it met a tile that it does not see.
      for (int d = 0; d < p_.head_dim_v; ++d) out_[at * p_.head_dim_v + d] = o[d] * factor + 0.0f;
      if (lse_) lse_[at] = m == kNone ? kNone : m / kLog2e + std::log(l);
    }
  }

  const AttentionParams& p_;
  const attention::AttentionPlan& plan_;
  const kv::KvPool& pool_;
  const int layer_;
  const float* q_;
  float* out_;
  float* lse_;
  const attention::WorkList& work_;
  const TileKernels& kernels_;
  const int group_, dim_k_, dim_v_;
  float* states_;
  std::unique_ptr<std::atomic<int>[]> left_;
  std::atomic<size_t> next_{0};
};

int64_t state_bytes(const AttentionParams& p, int64_t vectors) {
  return aligned(vectors * (round_up(p.head_dim_v, kMostPadding) + 2) * 4);
}

void check_shapes(const AttentionParams& p, const attention::AttentionPlan& plan, const kv::KvPool& pool,
                  int layer) {
  const kv::KvConfig& c = pool.config();
  if (p.kv_heads <= 0 || p.heads <= 0 || p.heads % p.kv_heads != 0)
    fail(ErrorKind::invalid_argument,
         "attention with {} heads over {} KV heads: the first must be a multiple", p.heads, p.kv_heads);
  if (p.kv_heads != c.kv_heads || p.head_dim_k != c.head_dim_k || p.head_dim_v != c.head_dim_v || layer < 0 ||
      layer >= c.layers)
    fail(ErrorKind::invalid_argument,
         "attention of layer {} with {} KV heads of {} and {} against a cache of {} layers, {} heads of {} "
         "and {}",
         layer, p.kv_heads, p.head_dim_k, p.head_dim_v, c.layers, c.kv_heads, c.head_dim_k, c.head_dim_v);
  for (size_t i = 0; i < plan.sequences.size(); ++i) attention::check_mask(plan.sequences[i], i);
  for (const auto& s : plan.sequences)
    if (s.kv_len > int64_t(s.block_table.size()) * c.page_tokens ||
        (p.causal && s.position + s.rows > s.kv_len))
      fail(ErrorKind::invalid_argument, "{} rows from position {} with {} tokens in {} pages of {}", s.rows,
           s.position, s.kv_len, s.block_table.size(), c.page_tokens);
}

}  // namespace

int64_t attention_scratch_bytes(const AttentionParams& p, int64_t kv_tokens, int threads) {
  return threads * Bench::bytes(p) + state_bytes(p, state_limit(p, kv_tokens, threads));
}

void attention(ThreadPool& threads, const AttentionParams& p, const attention::AttentionPlan& plan,
               const kv::KvPool& pool, int layer, const float* q, float* out, AttentionScratch& scratch,
               float* lse) {
  check_shapes(p, plan, pool, layer);
  int64_t kv_tokens = 0;
  for (const auto& s : plan.sequences) kv_tokens = std::max(kv_tokens, s.kv_len);
  const int64_t needed = attention_scratch_bytes(p, kv_tokens, threads.size());
  if (needed > int64_t(scratch.memory().size()))
    fail(ErrorKind::invalid_argument,
         "attention over {} tokens on {} threads needs {} bytes of scratch and has {}", kv_tokens,
         threads.size(), needed, scratch.memory().size());
  attention::make_work(plan, p.mask(), threads.size(), vector_limit(p),
                       state_limit(p, kv_tokens, threads.size()), scratch.work);
  const int64_t bench_bytes = Bench::bytes(p);
  Call call(p, plan, pool, layer, q, out, lse, scratch.work,
            scratch.memory().data() + threads.size() * bench_bytes);
  threads.run([&](int thread) {
    Bench bench;
    Bench::bytes(p, scratch.memory().data() + thread * bench_bytes, &bench);
    std::memset(const_cast<std::byte*>(bench.zeros), 0,
                size_t(round_up(std::max(p.head_dim_k, p.head_dim_v), 32) * 4));
    call.run(bench);
  });
}

}  // namespace cairn::cpu
