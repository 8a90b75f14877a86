// OLMoE: small experts chosen without renormalisation, RMS norm over the whole of q and k, optional clipping
// of q, k and v. Muennighoff et al. 2024.
#include <cmath>

#include "base/error.h"
#include "formats/json_fields.h"
#include "models/families.h"
#include "models/mixture.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Value;

constexpr std::string_view kArchitectures[] = {"OlmoeForCausalLM"};

struct Attention {
  DecoderSizes sizes;
  bool bias = false;
  float clip = 0;  // 0: none
  int32_t rope = 0;
  program::RopePairing pairing = program::RopePairing::half;
};

Value attention(Builder& b, Value x, const std::string& prefix, const Attention& a) {
  const auto& s = a.sizes;
  const Builder::Linear projections[] = {linear(prefix + "q_proj", s.heads * s.head_dim, a.bias),
                                         linear(prefix + "k_proj", s.kv_heads * s.head_dim, a.bias),
                                         linear(prefix + "v_proj", s.kv_heads * s.head_dim, a.bias)};
  const auto qkv = b.matmul(x, projections);
  Value q = b.rms_norm(qkv[0], prefix + "q_norm.weight", s.norm_eps);
  Value k = b.rms_norm(qkv[1], prefix + "k_norm.weight", s.norm_eps);
  Value v = qkv[2];
  if (a.clip > 0) {
    q = b.clamp(q, a.clip);
    k = b.clamp(k, a.clip);
    v = b.clamp(v, a.clip);
  }
  q = b.rope(q, s.heads, s.head_dim, s.head_dim, a.pairing, a.rope);
  k = b.rope(k, s.kv_heads, s.head_dim, s.head_dim, a.pairing, a.rope);
  Builder::AttentionOptions options;
  options.heads = s.heads;
  options.kv_heads = s.kv_heads;
  options.head_dim_k = options.head_dim_v = s.head_dim;
  options.scale = float(1 / std::sqrt(double(s.head_dim)));
  return b.matmul(b.attention(q, k, v, options), linear(prefix + "o_proj", s.hidden, a.bias));
}

program::Program build(const Source& file_source) {
  const auto config = with_defaults(
      file_source.config,
      {{"rms_norm_eps", 1e-5}, {"num_experts", 64}, {"num_experts_per_tok", 8}, {"norm_topk_prob", false}});
  const Source source = with_config(file_source, config);
  Attention a;
  a.sizes = read_sizes(source);
  MixtureBlock experts = read_mixture(source, "num_experts", "intermediate_size");
  experts.renormalize = formats::require_bool(config, "norm_topk_prob", source.file);
  a.bias = formats::optional_bool(config, "attention_bias", source.file).value_or(false);
  const auto clip = formats::optional_number(config, "clip_qkv", 0, 1e30, source.file);
  if (clip && *clip == 0)
    fail(ErrorKind::invalid_file, "{}: clip_qkv is 0; it must be positive, or null for no clipping",
         source.file);
  a.clip = float(clip.value_or(0));
  a.pairing = source.pairing;

  Builder b("olmoe (" + source.file + ")");
  a.rope = b.rope_table(read_rope(source, a.sizes.head_dim));
  return pre_norm_decoder(
      std::move(b), a.sizes,
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return attention(builder, x, prefix + "self_attn.", a);
      },
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return mixture(builder, x, prefix, experts);
      });
}

}  // namespace

const Family kOlmoe{"olmoe", kArchitectures, build};

}  // namespace cairn::models
