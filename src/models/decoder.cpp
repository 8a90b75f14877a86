#include "models/decoder.h"

#include <cmath>

#include "base/error.h"
#include "formats/json_fields.h"

namespace cairn::models {

using formats::optional_bool;
using formats::optional_int;
using formats::optional_number;
using formats::require_int;
using program::Builder;
using program::Value;

nlohmann::json with_defaults(const nlohmann::json& config, const nlohmann::json& defaults) {
  nlohmann::json result = defaults;
  result.update(config);
  return result;
}

Source with_config(const Source& source, const nlohmann::json& config) {
  return {config,         source.file,          source.checkpoint,        source.gguf,
          source.pairing, source.rope_divisors, source.norm_offset_stored};
}

void refuse_option(const Source& source, std::string_view field) {
  if (optional_bool(source.config, field, source.file).value_or(false))
    fail(ErrorKind::unsupported, "{}: {} is true, an option cairn does not have", source.file, field);
}

DecoderSizes read_sizes(const Source& source) {
  const auto& c = source.config;
  const auto& file = source.file;
  DecoderSizes s;
  s.hidden = require_int(c, "hidden_size", 1, 1 << 20, file);
  s.layers = require_int(c, "num_hidden_layers", 1, 4096, file);
  s.heads = require_int(c, "num_attention_heads", 1, 4096, file);
  s.kv_heads = optional_int(c, "num_key_value_heads", 1, 4096, file).value_or(s.heads);
  const auto head_dim = optional_int(c, "head_dim", 1, 4096, file);
  if (!head_dim && s.hidden % s.heads != 0)
    fail(ErrorKind::invalid_file,
         "{}: hidden_size {} is not a multiple of num_attention_heads {}, and there is no head_dim", file,
         s.hidden, s.heads);
  s.head_dim = head_dim.value_or(s.hidden / s.heads);
  if (s.heads % s.kv_heads != 0)
    fail(ErrorKind::invalid_file, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}",
         file, s.heads, s.kv_heads);
  s.intermediate = require_int(c, "intermediate_size", 1, 1 << 24, file);
  s.vocabulary = require_int(c, "vocab_size", 1, 1 << 24, file);
  s.norm_eps = float(optional_number(c, "rms_norm_eps", 0, 1, file).value_or(1e-6));
  s.tied = optional_bool(c, "tie_word_embeddings", file).value_or(false);
  return s;
}

program::Activation read_activation(const Source& source, std::string_view field, std::string_view fallback) {
  const auto name =
      formats::optional_string(source.config, field, source.file).value_or(std::string(fallback));
  const auto activation = program::find_activation(name);
  if (!activation)
    fail(ErrorKind::unsupported, "{}: {} is '{}', an activation cairn does not know", source.file, field,
         name);
  return *activation;
}

Builder::Linear linear(const std::string& name, int64_t out, bool bias) {
  return {name + ".weight", out, bias ? std::optional<program::Stored>(name + ".bias") : std::nullopt};
}

Value attention_block(Builder& b, Value x, const std::string& prefix, const AttentionBlock& a) {
  const auto& s = a.sizes;
  const Builder::Linear projections[] = {linear(prefix + "q_proj", s.heads * s.head_dim, a.qkv_bias),
                                         linear(prefix + "k_proj", s.kv_heads * s.head_dim, a.qkv_bias),
                                         linear(prefix + "v_proj", s.kv_heads * s.head_dim, a.qkv_bias)};
  const auto qkv = b.matmul(x, projections);
  Value q = qkv[0], k = qkv[1];
  if (a.qk_norm_eps != 0) {
    q = b.rms_norm(q, prefix + "q_norm.weight", a.qk_norm_eps, a.qk_norm_offset, s.head_dim);
    k = b.rms_norm(k, prefix + "k_norm.weight", a.qk_norm_eps, a.qk_norm_offset, s.head_dim);
  }
  if (a.rope >= 0) {
    const int64_t rotary = a.rotary_dim != 0 ? a.rotary_dim : s.head_dim;
    q = b.rope(q, s.heads, s.head_dim, rotary, a.pairing, a.rope);
    k = b.rope(k, s.kv_heads, s.head_dim, rotary, a.pairing, a.rope);
  }
  Builder::AttentionOptions options;
  options.heads = s.heads;
  options.kv_heads = s.kv_heads;
  options.head_dim_k = options.head_dim_v = s.head_dim;
  options.scale = a.scale != 0 ? a.scale : float(1 / std::sqrt(double(s.head_dim)));
  options.window = a.window;
  options.softcap = a.softcap;
  const Value attended = b.attention(q, k, qkv[2], options);
  return b.matmul(attended, linear(prefix + "o_proj", s.hidden, a.output_bias));
}

Value gated_mlp(Builder& b, Value x, const std::string& prefix, int64_t intermediate, int64_t hidden,
                program::Activation activation, bool bias) {
  const Builder::Linear inputs[] = {linear(prefix + "gate_proj", intermediate, bias),
                                    linear(prefix + "up_proj", intermediate, bias)};
  const auto gate_up = b.matmul(x, inputs);
  const Value gated = b.gated(gate_up[0], gate_up[1], activation);
  return b.matmul(gated, linear(prefix + "down_proj", hidden, bias));
}

program::Program pre_norm_decoder(Builder b, const DecoderSizes& s, const LayerPart& attention,
                                  const LayerPart& mlp) {
  Value x = b.embed(b.ids(), "model.embed_tokens.weight", s.vocabulary, s.hidden);
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    b.layer(int32_t(layer));
    const auto prefix = "model.layers." + std::to_string(layer) + ".";
    x = b.add(x, attention(b, b.rms_norm(x, prefix + "input_layernorm.weight", s.norm_eps), layer, prefix));
    x = b.add(x,
              mlp(b, b.rms_norm(x, prefix + "post_attention_layernorm.weight", s.norm_eps), layer, prefix));
  }
  x = b.gather_logit_rows(x);
  x = b.rms_norm(x, "model.norm.weight", s.norm_eps);
  finish_with_head(b, x, s);
  return b.finish();
}

void finish_with_head(Builder& b, Value x, const DecoderSizes& s, float softcap) {
  b.logits(x, linear(s.tied ? "model.embed_tokens" : "lm_head", s.vocabulary), 1, softcap);
}

}  // namespace cairn::models
