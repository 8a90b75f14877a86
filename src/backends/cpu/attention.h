// Attention over the paged KV cache.
//
//   out[r, h] = sum_t p_t V[t, h / group] / sum_t p_t,  p_t = exp(logit_t), t over the tokens that row r sees
//   logit_t   = cap(scale * q[r, h] . K[t, h / group]) + slope_h * (t - position_r),  cap(x) = softcap *
//   tanh(x / softcap)
// with exp(sink_h) added to the denominator where a head has a sink (GPT-OSS). Softmax is online over tiles
// of keys (FlashAttention): no matrix of scores exists. All query heads of a KV head share each tile, so K
// and V are read once.
//
// Arithmetic, by KV form and instruction set (products always accumulate in f32):
//   f32 cache: f32 products everywhere.
//   f16, bf16, q8_0 cache: f32 products up to avx512; from vnni on queries, keys, probabilities and values
//   are rounded to bf16 before they are multiplied (AVX512-BF16, AMX).
// A row's bits depend on its query, its keys and the instruction set; not on the batch, the chunk or the
// threads (see attention/plan.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/plan.h"
#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "kv/pool.h"

namespace cairn::cpu {

struct AttentionParams {
  int heads = 0,
      kv_heads = 0;  // heads is a multiple of kv_heads; heads h .. share KV head h / (heads / kv_heads)
  int head_dim_k = 0, head_dim_v = 0;
  float scale = 0;                      // usually 1 / sqrt(head_dim_k)
  int window = 0;                       // see attention::MaskShape; 0: none
  float softcap = 0;                    // 0: none
  const float* sinks = nullptr;         // [heads] logits, or null
  const float* alibi_slopes = nullptr;  // [heads], or null
  bool causal = true;

  attention::MaskShape mask() const { return {heads, kv_heads, window, causal}; }
};

// Bytes of scratch for any plan whose sequences have at most kv_tokens tokens, whatever the number of rows.
int64_t attention_scratch_bytes(const AttentionParams&, int64_t kv_tokens, int threads);

// Working memory of one attention call at a time; shared by all layers.
class AttentionScratch {
 public:
  explicit AttentionScratch(int64_t bytes) : memory_(size_t(bytes)) {}
  std::span<std::byte> memory() const { return memory_.span(); }
  attention::WorkList work;

 private:
  AlignedBuffer memory_;
};

// Writes the rows' keys and values into the cache: row i of a sequence goes to token position + i of its
// block table. k is [rows, kv_heads * head_dim_k], v [rows, kv_heads * head_dim_v], rows as in the plan.
// Rounding is to nearest even (f16, bf16) or that of codec q8_0; a NaN stays a NaN.
void append_kv(ThreadPool&, const attention::AttentionPlan&, kv::KvPool&, int layer, const float* k,
               const float* v);

// q is [rows, heads * head_dim_k], out [rows, heads * head_dim_v]. lse, if given, is [rows, heads]: the
// natural logarithm of the softmax denominator (sinks included), with which results over disjoint keys can be
// joined. A row that sees no key is zero, and its lse -infinity (or its sink). Throws Error(invalid_argument)
// when the shapes contradict each other; the scratch must be large enough.
void attention(ThreadPool&, const AttentionParams&, const attention::AttentionPlan&, const kv::KvPool&,
               int layer, const float* q, float* out, AttentionScratch&, float* lse = nullptr);

// The definition, in double and in order, over the values as the cache holds them. Never made faster.
void attention_reference(const AttentionParams&, const attention::AttentionPlan&, const kv::KvPool&,
                         int layer, const float* q, float* out, float* lse = nullptr);

}  // namespace cairn::cpu
