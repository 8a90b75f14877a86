#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backends/cpu/attention.h"
#include "base/checked.h"
#include "base/float16.h"
#include "codecs/legacy_blocks.h"

namespace cairn::cpu {
namespace {

std::vector<float> stored_row(const kv::KvPool& pool, kv::Part part, int layer,
                              std::span<const int32_t> block_table, int kv_head, int64_t token) {
  const int page_tokens = pool.config().page_tokens, dim = pool.head_dim(part);
  const std::byte* row = pool.head(part, layer, block_table[size_t(token / page_tokens)], kv_head) +
                         token % page_tokens * pool.row_bytes(part);
  std::vector<float> values(size_t(round_up(dim, 32)));
  const auto* halves = reinterpret_cast<const uint16_t*>(row);
  switch (pool.config().form) {
    case kv::KvForm::f32: std::copy_n(reinterpret_cast<const float*>(row), dim, values.begin()); break;
    case kv::KvForm::f16: std::transform(halves, halves + dim, values.begin(), f16_to_float); break;
    case kv::KvForm::bf16: std::transform(halves, halves + dim, values.begin(), bf16_to_float); break;
    case kv::KvForm::q8_0: codecs::decode_q8_0(row, values.data(), round_up(dim, 32)); break;
    case kv::KvForm::e4m3: break;  // no pool in host memory holds it
  }
  return values;
}

}  // namespace

void attention_reference(const AttentionParams& p, const attention::AttentionPlan& plan,
                         const kv::KvPool& pool, int layer, const float* q, float* out, float* lse) {
  for (const attention::QueryRows& s : plan.sequences)
    for (int64_t row = 0; row < s.rows; ++row)
      for (int head = 0; head < p.heads; ++head) {
        const int64_t position = s.position + row;
        const int kv_head = head / (p.heads / p.kv_heads);
        const attention::Visible seen = attention::visible(p.mask(), position, s.kv_len);
        const float* query = q + ((s.row_begin + row) * p.heads + head) * p.head_dim_k;
        std::vector<double> logits;
        double most = p.sinks ? double(p.sinks[head]) : -std::numeric_limits<double>::infinity();
        for (int64_t t = seen.begin; t < seen.end; ++t) {
          if (s.masks(row, t)) {
            logits.push_back(-std::numeric_limits<double>::infinity());
            continue;
          }
          const auto key = stored_row(pool, kv::Part::K, layer, s.block_table, kv_head, t);
          double logit = 0;
          for (int d = 0; d < p.head_dim_k; ++d) logit += double(query[d]) * key[size_t(d)];
          logit *= p.scale;
          if (p.softcap != 0) logit = p.softcap * std::tanh(logit / p.softcap);
          if (p.alibi_slopes) logit += double(p.alibi_slopes[head]) * double(t - position);
          logits.push_back(logit);
          most = std::max(most, logit);
        }
        double denominator = p.sinks ? std::exp(p.sinks[head] - most) : 0;
        std::vector<double> sum(size_t(p.head_dim_v), 0.0);
        for (int64_t t = seen.begin; t < seen.end; ++t) {
          if (s.masks(row, t)) continue;
          const double weight = std::exp(logits[size_t(t - seen.begin)] - most);
          const auto value = stored_row(pool, kv::Part::V, layer, s.block_table, kv_head, t);
          denominator += weight;
          for (int d = 0; d < p.head_dim_v; ++d) sum[size_t(d)] += weight * value[size_t(d)];
        }
        const int64_t at = (s.row_begin + row) * p.heads + head;
        for (int d = 0; d < p.head_dim_v; ++d)
          out[at * p.head_dim_v + d] = denominator > 0 ? float(sum[size_t(d)] / denominator) : 0.0f;
        if (lse) lse[at] = float(denominator > 0 ? most + std::log(denominator) : most);
      }
}

}  // namespace cairn::cpu
