#include "backends/cpu/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "codecs/codec.h"

namespace cairn::cpu {
namespace {

using attention::AttentionPlan;
using kv::KvForm;

class IsaLevel {
 public:
  explicit IsaLevel(Isa isa) : before_(active_isa()) { set_active_isa(isa); }
  ~IsaLevel() { set_active_isa(before_); }

 private:
  Isa before_;
};

std::vector<Isa> levels() {
  std::vector<Isa> all;
  for (int isa = 0; isa <= int(detect_isa()); ++isa) all.push_back(Isa(isa));
  return all;
}

std::vector<float> gaussian(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

// A cache with sequences whose first lengths[i] tokens are there; every other byte of it is a NaN.
struct Cache {
  kv::KvPool pool;
  std::vector<kv::Sequence> sequences;

  Cache(const AttentionParams& p, KvForm form, int page_tokens, const std::vector<int64_t>& lengths,
        uint64_t seed = 1)
      : pool(config(p, form, page_tokens, lengths)) {
    for (const kv::Part part : {kv::Part::K, kv::Part::V})
      for (int32_t page = 0; page < pool.config().pages; ++page)
        for (int head = 0; head < p.kv_heads; ++head)
          for (int layer = 0; layer < 2; ++layer)
            std::memset(pool.head(part, layer, page, head), 0xff, size_t(pool.row_bytes(part) * page_tokens));
    ThreadPool one(1);
    // Pages are handed out in turns, so no block table counts upwards.
    for (size_t i = 0; i < lengths.size(); ++i) sequences.emplace_back(pool);
    for (int64_t n = 0; n < *std::max_element(lengths.begin(), lengths.end()); ++n)
      for (size_t i = 0; i < lengths.size(); ++i)
        if (n < lengths[i]) sequences[i].append(1);
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto n = size_t(lengths[i]);
      const auto k = gaussian(n * size_t(p.kv_heads * p.head_dim_k), seed * 100 + i);
      const auto v = gaussian(n * size_t(p.kv_heads * p.head_dim_v), seed * 200 + i);
      AttentionPlan plan;
      plan.sequences.push_back(
          {.rows = int32_t(n), .kv_len = lengths[i], .block_table = sequences[i].block_table()});
      append_kv(one, plan, pool, 1, k.data(), v.data());
    }
  }

  static kv::KvConfig config(const AttentionParams& p, KvForm form, int page_tokens,
                             const std::vector<int64_t>& lengths) {
    kv::KvConfig c{.layers = 2,
                   .kv_heads = p.kv_heads,
                   .head_dim_k = p.head_dim_k,
                   .head_dim_v = p.head_dim_v,
                   .page_tokens = page_tokens,
                   .form = form,
                   .pages = 1};
    for (const int64_t n : lengths) c.pages += (n + page_tokens - 1) / page_tokens;
    return c;
  }

  // The last rows[i] tokens of each sequence as queries.
  AttentionPlan plan(const std::vector<int>& rows) const {
    AttentionPlan plan;
    int64_t row = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] == 0) continue;
      const int64_t length = sequences[i].length();
      plan.sequences.push_back({.row_begin = row,
                                .rows = rows[i],
                                .position = length - rows[i],
                                .kv_len = length,
                                .block_table = sequences[i].block_table()});
      row += rows[i];
    }
    return plan;
  }
};

struct Result {
  std::vector<float> out, lse;
};

Result run(const AttentionParams& p, const AttentionPlan& plan, const kv::KvPool& pool, const float* q,
           int threads) {
  ThreadPool team(threads);
  const auto rows = size_t(plan.rows());
  Result r{std::vector<float>(rows * size_t(p.heads * p.head_dim_v), std::nanf("")),
           std::vector<float>(rows * size_t(p.heads), std::nanf(""))};
  int64_t longest = 0;
  for (const auto& s : plan.sequences) longest = std::max(longest, s.kv_len);
  AttentionScratch scratch(attention_scratch_bytes(p, longest, threads));
  std::memset(scratch.memory().data(), 0xff, scratch.memory().size());
  attention(team, p, plan, pool, 1, q, r.out.data(), scratch, r.lse.data());
  return r;
}

Result reference(const AttentionParams& p, const AttentionPlan& plan, const kv::KvPool& pool,
                 const float* q) {
  const auto rows = size_t(plan.rows());
  Result r{std::vector<float>(rows * size_t(p.heads * p.head_dim_v)),
           std::vector<float>(rows * size_t(p.heads))};
  attention_reference(p, plan, pool, 1, q, r.out.data(), r.lse.data());
  return r;
}

// How far an output may be from the definition. With unit u of the products (2^-24 for f32, 2^-9 for bf16)
// the dot product of dim_k rounded factors errs by at most 2 u sum|q k| + dim_k 2^-24 sum|q k|; |q|, |k| stay
// below 5.5 here and sum|q k| below about dim_k + 12 sqrt(dim_k) (mean 2/pi dim_k, the rest over six standard
// deviations). A logit that errs by e changes a probability by a factor exp(+-e) and the quotient of sums by
// exp(+-2e) of the largest value. Probabilities and values round once more (2 u), and 64 + 32 additions of
// f32 follow; a factor 2 covers the second order.
struct Bound {
  double out, lse;
};
Bound bound(const AttentionParams& p, KvForm form, double position) {
  const bool bf16 = form != KvForm::f32 && active_isa() >= Isa::vnni;
  const double unit = bf16 ? 0x1p-9 : 0x1p-24, f32 = 0x1p-24;
  const double products = p.head_dim_k + 12 * std::sqrt(p.head_dim_k);
  // The reference rounds alibi and soft-cap nowhere; here they are f32 in units of ln 2.
  const double extras = (p.softcap != 0 ? 8 * p.softcap : 0) + (p.alibi_slopes ? 4 * position : 0) + 32;
  const double logit = (2 * unit + p.head_dim_k * f32) * products * p.scale + extras * f32;
  return {2 * 5.5 * (std::expm1(2 * logit) + 2 * unit * (bf16 ? 1 : 0) + 160 * f32 + (bf16 ? 4e-6 : 0)),
          2 * (logit + 160 * f32 + (bf16 ? 4e-6 : 0))};
}

void expect_near(const AttentionParams& p, KvForm form, const Result& got, const Result& want,
                 double position, const std::string& what) {
  const Bound b = bound(p, form, position);
  for (size_t i = 0; i < want.out.size(); ++i)
    ASSERT_NEAR(got.out[i], want.out[i], b.out) << what << " out " << i;
  for (size_t i = 0; i < want.lse.size(); ++i) {
    if (std::isinf(want.lse[i])) {
      ASSERT_EQ(got.lse[i], want.lse[i]) << what << " lse " << i;
    } else {
      ASSERT_NEAR(got.lse[i], want.lse[i], b.lse * (1 + std::abs(want.lse[i]))) << what << " lse " << i;
    }
  }
}

AttentionParams params(int heads, int kv_heads, int dim_k, int dim_v) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim_k = dim_k,
          .head_dim_v = dim_v,
          .scale = 1 / std::sqrt(float(dim_k))};
}

std::string name(Isa isa, KvForm form) {
  return std::string(to_string(isa)) + ' ' + std::string(to_string(form));
}

constexpr KvForm kForms[] = {KvForm::f32, KvForm::f16, KvForm::bf16, KvForm::q8_0};

// Against the definition, on every instruction set that this machine has.
void check_levels(const AttentionParams& p, const Cache& cache, const AttentionPlan& plan,
                  const std::vector<int>& threads, const std::string& what) {
  const auto q = gaussian(size_t(plan.rows() * p.heads * p.head_dim_k), 7);
  const KvForm form = cache.pool.config().form;
  const Result want = reference(p, plan, cache.pool, q.data());
  double longest = 0;
  for (const auto& s : plan.sequences) longest = std::max(longest, double(s.kv_len));
  for (const Isa isa : levels())
    for (const int team : threads) {
      const IsaLevel level(isa);
      expect_near(p, form, run(p, plan, cache.pool, q.data(), team), want, longest, name(isa, form) + what);
    }
}

TEST(CpuAttention, MatchesTheReferenceForEveryHeadSize) {
  const std::pair<int, int> dims[] = {{8, 8},   {16, 16},   {33, 33},   {64, 64},   {72, 40}, {80, 80},
                                      {96, 96}, {128, 128}, {192, 128}, {256, 256}, {1, 5}};
  for (const KvForm form : kForms)
    for (const auto& [dim_k, dim_v] : dims) {
      const AttentionParams p = params(4, 2, dim_k, dim_v);
      const Cache cache(p, form, 16, {101, 7});
      check_levels(p, cache, cache.plan({3, 1}), {1}, fmt::format(" dims {} {}", dim_k, dim_v));
    }
}

TEST(CpuAttention, MatchesTheReferenceForGroupsPagesAndRows) {
  for (const KvForm form : kForms)
    for (const int group : {1, 3, 4, 8, 16, 20})
      for (const int page_tokens : {1, 16, 32, 64, 128})
        for (const int rows : {1, 2, 17, 70}) {
          if (rows > 2 && group != 4 && page_tokens != 32) continue;
          if (rows > 17 && group > 4) continue;
          const AttentionParams p = params(2 * group, 2, 32, 32);
          const Cache cache(p, form, page_tokens, {130});
          check_levels(p, cache, cache.plan({rows}), {1},
                       fmt::format(" group {} page {} rows {}", group, page_tokens, rows));
        }
}

TEST(CpuAttention, MatchesTheReferenceForMasksCapsSinksAndSlopes) {
  const std::vector<float> sinks{0.5f, -1, 3, 20}, slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  for (const KvForm form : kForms)
    for (const int window : {0, 1, 5, 64, 100, 1000})
      for (int extras = 0; extras < 16; ++extras) {
        if (form != KvForm::f32 && form != KvForm::f16 && extras % 5 != 0) continue;
        AttentionParams p = params(4, 2, 24, 16);
        p.window = window;
        if (extras & 1) p.softcap = 2.5f;
        if (extras & 2) p.sinks = sinks.data();
        if (extras & 4) p.alibi_slopes = slopes.data();
        p.causal = !(extras & 8);
        const Cache cache(p, form, 16, {200});
        check_levels(p, cache, cache.plan({20}), {2}, fmt::format(" window {} extras {}", window, extras));
      }
}

// Masks of the rows' own: bits at random, a run per token (the most there are), and all set, which must not
// show.
TEST(CpuAttention, MatchesTheReferenceForMasksOfTheRowsOwn) {
  struct Case {
    int rows;
    int64_t length, mask_begin;
    bool causal;
    int window;
  };
  for (const KvForm form : kForms)
    for (const auto& [rows, length, mask_begin, causal, window] :
         {Case{1, 2200, 0, true, 0}, Case{5, 700, 130, true, 500}, Case{40, 300, 250, true, 0},
          Case{70, 200, 0, false, 0}}) {
      AttentionParams p = params(8, 2, 32, 24);
      p.causal = causal, p.window = window;
      const Cache cache(p, form, 16, {length, 90});
      AttentionPlan plan = cache.plan({rows, std::min(rows, 40)});
      std::mt19937 random(unsigned(rows + mask_begin));
      std::vector<uint32_t> masks[2];
      for (size_t i = 0; i < 2; ++i) {
        auto& s = plan.sequences[i];
        s.mask_begin = std::min(mask_begin, s.kv_len - 1);
        masks[i].resize(size_t(s.rows * s.mask_words()));
        for (uint32_t& word : masks[i]) word = random() % 4 == 0 ? 0x55555555u : uint32_t(random());
        s.mask = masks[i];
      }
      const std::string what = fmt::format(" rows {} mask from {} causal {}", rows, mask_begin, causal);
      check_levels(p, cache, plan, {1, 3}, what);
      for (auto& m : masks) std::fill(m.begin(), m.end(), ~0u);
      const auto q = gaussian(size_t(plan.rows() * p.heads * p.head_dim_k), 7);
      const Result all = run(p, plan, cache.pool, q.data(), 1);
      for (auto& s : plan.sequences) s.mask = {};
      EXPECT_EQ(all.out, run(p, plan, cache.pool, q.data(), 1).out) << name(active_isa(), form) << what;
    }
}

TEST(CpuAttention, LongContextsAreJoinedFromParts) {
  for (const KvForm form : kForms) {
    AttentionParams p = params(4, 1, 16, 16);
    const Cache cache(p, form, 32, {2 * attention::kMergeTokens + 77});
    for (const int window : {0, 2100}) {
      p.window = window;
      check_levels(p, cache, cache.plan({3}), {1, 3}, fmt::format(" window {}", window));
    }
  }
}

bool same_bits(const float* a, const float* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

// The promise of attention/plan.h: alone, in a chunk, in a batch, on any number of threads, the same bits.
TEST(CpuAttention, BitsDependOnNothingButTheRow) {
  const std::vector<float> sinks{0.5f, -1, 3, 20, 0, 1, 2, 3};
  const int64_t longest = attention::kMergeTokens + 150;
  for (const Isa isa : levels())
    for (const KvForm form : kForms)
      for (const int window : {0, 70, 2090}) {
        const IsaLevel level(isa);
        AttentionParams p = params(8, 2, 40, 24);
        p.window = window;
        if (window == 70) p.sinks = sinks.data();
        const Cache cache(p, form, 16, {longest, 90, 5});
        const std::vector<int> rows{140, 90, 1};
        const AttentionPlan plan = cache.plan(rows);
        const auto q = gaussian(size_t(plan.rows() * p.heads * 40), 11);
        const Result whole = run(p, plan, cache.pool, q.data(), 1);
        const size_t out_row = size_t(p.heads * p.head_dim_v), q_row = size_t(p.heads * p.head_dim_k);
        for (const int threads : {2, 5}) {
          const Result r = run(p, plan, cache.pool, q.data(), threads);
          ASSERT_TRUE(same_bits(r.out.data(), whole.out.data(), whole.out.size()))
              << name(isa, form) << threads;
          ASSERT_TRUE(same_bits(r.lse.data(), whole.lse.data(), whole.lse.size()))
              << name(isa, form) << threads;
        }
        for (size_t i = 0; i < rows.size(); ++i) {
          const attention::QueryRows& s = plan.sequences[i];
          for (const int chunk :
               {1, 7, 64}) {  // of one sequence, each with only the keys that were there then
            for (int first = 0; first < rows[i]; first += chunk) {
              if (chunk < 64 && first / chunk % (chunk == 1 ? 19 : 5) != 0) continue;
              const int count = std::min(chunk, rows[i] - first);
              AttentionPlan part;
              part.sequences.push_back({.rows = count,
                                        .position = s.position + first,
                                        .kv_len = s.position + first + count,
                                        .block_table = s.block_table});
              const size_t row = size_t(s.row_begin) + size_t(first);
              const Result r = run(p, part, cache.pool, q.data() + row * q_row, chunk == 7 ? 3 : 1);
              ASSERT_TRUE(same_bits(r.out.data(), whole.out.data() + row * out_row, r.out.size()))
                  << name(isa, form) << " window " << window << " sequence " << i << " row " << first
                  << " of chunks " << chunk;
            }
          }
        }
      }
}

TEST(CpuAttention, ARowThatSeesNothingIsZero) {
  for (const Isa isa : levels()) {
    const IsaLevel level(isa);
    const AttentionParams p = params(2, 2, 16, 16);
    AttentionParams window = p;
    window.window = 3;
    window.causal = false;
    const Cache cache(p, KvForm::f16, 16, {20});
    AttentionPlan plan = cache.plan({1});
    plan.sequences[0].position = 100;  // cross-attention far past the keys
    const auto q = gaussian(size_t(2 * 16), 12);
    const Result r = run(window, plan, cache.pool, q.data(), 1);
    for (const float v : r.out) EXPECT_EQ(v, 0.0f);
    for (const float v : r.lse) EXPECT_EQ(v, -std::numeric_limits<float>::infinity());
  }
}

TEST(CpuAttention, ANaNInTheKeysReachesTheOutput) {
  for (const Isa isa : levels())
    for (const KvForm form : kForms) {
      const IsaLevel level(isa);
      const AttentionParams p = params(2, 2, 32, 32);
      Cache cache(p, form, 16, {20});
      ThreadPool one(1);
      const std::vector<float> bad(64, std::nanf("")), good(64, 1.0f);
      AttentionPlan plan;
      plan.sequences.push_back(
          {.rows = 1, .position = 3, .kv_len = 20, .block_table = cache.sequences[0].block_table()});
      append_kv(one, plan, cache.pool, 1, bad.data(), good.data());
      const auto q = gaussian(64, 13);
      const AttentionPlan last = cache.plan({1});
      for (const float v : run(p, last, cache.pool, q.data(), 1).out)
        EXPECT_TRUE(std::isnan(v)) << name(isa, form);
    }
}

TEST(CpuAttention, AppendWritesTheSameBytesOnEveryLevel) {
  const AttentionParams p = params(2, 2, 72, 45);
  for (const KvForm form : kForms) {
    std::vector<std::vector<std::byte>> written;
    for (const Isa isa : levels()) {
      const IsaLevel level(isa);
      Cache cache(p, form, 16, {40});
      auto k = gaussian(40 * 144, 20), v = gaussian(40 * 90, 21);
      for (size_t i = 0; i < k.size(); ++i) k[i] *= std::exp2(float(int(i % 40) - 30));
      v[5] = 0.5f, v[6] = 1.0f;  // ties of q8_0 when 127 halves are the largest
      for (size_t i = 0; i < 45; ++i) v[i] = i == 44 ? 127.0f : float(i) - 22.5f;
      ThreadPool two(2);
      AttentionPlan plan = cache.plan({40});
      append_kv(two, plan, cache.pool, 1, k.data(), v.data());
      std::vector<std::byte> bytes;
      for (const kv::Part part : {kv::Part::K, kv::Part::V})
        for (const int32_t page : cache.sequences[0].block_table())
          for (int head = 0; head < 2; ++head) {
            const std::byte* rows = cache.pool.head(part, 1, page, head);
            bytes.insert(bytes.end(), rows, rows + 8 * cache.pool.row_bytes(part));
          }
      // And what codecs' scalar encoder writes for the first row.
      const codecs::Codec& codec = *codecs::find_codec(to_string(form));
      std::vector<float> row(k.begin(), k.begin() + 72);
      row.resize(form == KvForm::q8_0 ? 96 : 72);
      std::vector<std::byte> want(size_t(*codecs::row_bytes(codec, row.size())));
      codec.encode(row.data(), want.data(), int64_t(row.size()), nullptr);
      ASSERT_EQ(std::memcmp(cache.pool.head(kv::Part::K, 1, plan.sequences[0].block_table[0], 0), want.data(),
                            want.size()),
                0)
          << name(isa, form);
      written.push_back(std::move(bytes));
    }
    for (const auto& bytes : written) EXPECT_EQ(bytes, written[0]) << to_string(form);
  }
}

TEST(CpuAttention, RefusesShapesThatContradictTheCache) {
  const AttentionParams p = params(4, 2, 16, 16);
  const Cache cache(p, KvForm::f16, 16, {20});
  const AttentionPlan plan = cache.plan({1});
  ThreadPool one(1);
  AttentionScratch scratch(attention_scratch_bytes(p, 20, 1)), little(64);
  std::vector<float> q(64), out(64);
  const auto call = [&](const AttentionParams& bad, int layer, AttentionScratch& s) {
    attention(one, bad, plan, cache.pool, layer, q.data(), out.data(), s);
  };
  EXPECT_NO_THROW(call(p, 1, scratch));
  EXPECT_THROW(call(params(4, 2, 8, 16), 1, scratch), Error);
  EXPECT_THROW(call(params(5, 2, 16, 16), 1, scratch), Error);
  EXPECT_THROW(call(p, 2, scratch), Error);
  EXPECT_THROW(call(p, 1, little), Error);
}

}  // namespace
}  // namespace cairn::cpu
