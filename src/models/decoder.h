// The parts that decoder-only families share: sizes read from a config and the usual attention and MLP
// blocks. A family picks what it needs; a quirk stays in the family's file.
#pragma once

#include <functional>

#include "models/model.h"
#include "models/rope_config.h"

namespace cairn::models {

struct DecoderSizes {
  int64_t hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0, vocabulary = 0;
  float norm_eps = 1e-6f;
  bool tied = false;
};

// A config with the fields that its class in transformers would add: what published files leave out. A field
// that is there stays, null included. The result must outlive the Source made from it.
nlohmann::json with_defaults(const nlohmann::json& config, const nlohmann::json& defaults);
Source with_config(const Source&, const nlohmann::json& config);

// The config.json keys of Llama-like models; each missing or absurd field is an Error naming it.
DecoderSizes read_sizes(const Source&);

// Throws Error(unsupported) when the config sets `field` to true: an option that would change the result.
void refuse_option(const Source&, std::string_view field);

// hidden_act or hidden_activation; an unknown name is an Error.
program::Activation read_activation(const Source&, std::string_view field, std::string_view fallback);

// "model.layers.3.self_attn.q_proj" + ".weight", and its bias when asked for.
program::Builder::Linear linear(const std::string& name, int64_t out, bool bias = false);

struct AttentionBlock {
  DecoderSizes sizes;
  bool qkv_bias = false, output_bias = false;
  float scale = 0;  // 0: 1 / sqrt(head_dim)
  int64_t window = 0;
  float softcap = 0;
  float qk_norm_eps = 0;  // not 0: RMS norm per head on q and k, weights q_norm and k_norm
  float qk_norm_offset = 0;
  int64_t rotary_dim = 0;  // 0: head_dim
  int32_t rope = 0;        // index of a rope table; -1: none
  program::RopePairing pairing = program::RopePairing::half;
};
// q/k/v projections, optional norms, rope, attention, output projection. prefix: "model.layers.3.self_attn."
program::Value attention_block(program::Builder&, program::Value x, const std::string& prefix,
                               const AttentionBlock&);

// down(act(gate(x)) * up(x)); prefix: "model.layers.3.mlp."
program::Value gated_mlp(program::Builder&, program::Value x, const std::string& prefix, int64_t intermediate,
                         int64_t hidden, program::Activation, bool bias = false);

// The frame of Llama and its descendants: x += attention(norm(x)); x += mlp(norm(x)) per layer, final norm,
// scores. A part gets the normed rows, the layer and its prefix "model.layers.3.".
using LayerPart = std::function<program::Value(program::Builder&, program::Value, int64_t layer,
                                               const std::string& prefix)>;
program::Program pre_norm_decoder(program::Builder, const DecoderSizes&, const LayerPart& attention,
                                  const LayerPart& mlp);

// Final norm has been applied to the gathered rows x: scores from lm_head or, when tied, the embedding.
void finish_with_head(program::Builder&, program::Value x, const DecoderSizes&, float softcap = 0);

}  // namespace cairn::models
