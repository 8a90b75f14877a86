// Phi-3, 3.5 and Phi-4(-mini): Llama with q, k, v in one tensor and gate, up in another, LongRoPE, partly
// rotated heads. Abdin et al. 2024.
#include <cmath>

#include "base/error.h"
#include "formats/json_fields.h"
#include "models/decoder.h"
#include "models/families.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Stored;
using program::Value;

constexpr std::string_view kArchitectures[] = {"Phi3ForCausalLM"};

// The config's rope fields in the form that rope_config.h reads: "yarn" and "su" were early names of longrope
// here, and original_max_position_embeddings beside the scaling wins over one inside.
nlohmann::json plain_rope(const nlohmann::json& file_config, const std::string& file) {
  nlohmann::json config = file_config;
  const bool had_original = formats::find_field(config, "original_max_position_embeddings", file) != nullptr;
  if (!had_original) config["original_max_position_embeddings"] = 4096;
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!formats::optional_object(config, field, file)) continue;
    auto& scaling = config[field];
    for (const char* type : {"type", "rope_type"})
      if (scaling.contains(type) && (scaling[type] == "yarn" || scaling[type] == "su"))
        scaling[type] = "longrope";
    if (had_original || !scaling.contains("original_max_position_embeddings"))
      scaling["original_max_position_embeddings"] = config["original_max_position_embeddings"];
  }
  return config;
}

int64_t read_rotary_dim(const Source& source, int64_t head_dim) {
  if (const auto stored = formats::optional_int(source.config, "rotary_dim", 2, head_dim, source.file))
    return *stored;  // GGUF
  auto factor = formats::optional_number(source.config, "partial_rotary_factor", 0, 1, source.file);
  if (const auto* rope = formats::optional_object(source.config, "rope_parameters", source.file))
    if (const auto inside = formats::optional_number(*rope, "partial_rotary_factor", 0, 1, source.file))
      factor = inside;
  return int64_t(double(head_dim) * factor.value_or(1));
}

struct Layer {
  DecoderSizes sizes;
  int64_t window = 0, rotary_dim = 0;
  int32_t rope = 0;
  program::RopePairing pairing = program::RopePairing::half;
  program::Activation activation = program::Activation::silu;
};

Value attention(Builder& b, Value x, const std::string& prefix, const Layer& layer) {
  const auto& s = layer.sizes;
  const int64_t query = s.heads * s.head_dim, key = s.kv_heads * s.head_dim, rows = query + 2 * key;
  const auto name = prefix + "self_attn.qkv_proj.weight";
  const Builder::Linear parts[] = {{Stored(name, 0, rows), query, std::nullopt},
                                   {Stored(name, query, rows), key, std::nullopt},
                                   {Stored(name, query + key, rows), key, std::nullopt}};
  const auto qkv = b.matmul(x, parts);
  const Value q = b.rope(qkv[0], s.heads, s.head_dim, layer.rotary_dim, layer.pairing, layer.rope);
  const Value k = b.rope(qkv[1], s.kv_heads, s.head_dim, layer.rotary_dim, layer.pairing, layer.rope);
  Builder::AttentionOptions options;
  options.heads = s.heads;
  options.kv_heads = s.kv_heads;
  options.head_dim_k = options.head_dim_v = s.head_dim;
  options.scale = float(1 / std::sqrt(double(s.head_dim)));
  options.window = layer.window;
  return b.matmul(b.attention(q, k, qkv[2], options), linear(prefix + "self_attn.o_proj", s.hidden));
}

Value mlp(Builder& b, Value x, const std::string& prefix, const Layer& layer) {
  const int64_t n = layer.sizes.intermediate;
  const auto name = prefix + "mlp.gate_up_proj.weight";
  const Builder::Linear parts[] = {{Stored(name, 0, 2 * n), n, std::nullopt},
                                   {Stored(name, n, 2 * n), n, std::nullopt}};
  const auto gate_up = b.matmul(x, parts);
  const Value gated = b.gated(gate_up[0], gate_up[1], layer.activation);
  return b.matmul(gated, linear(prefix + "mlp.down_proj", layer.sizes.hidden));
}

program::Program build(const Source& file_source) {
  const auto config = plain_rope(
      with_defaults(file_source.config, {{"rms_norm_eps", 1e-5}, {"max_position_embeddings", 4096}}),
      file_source.file);
  const Source source = with_config(file_source, config);
  Layer layer;
  layer.sizes = read_sizes(source);
  layer.activation = read_activation(source, "hidden_act", "silu");
  layer.window =
      formats::optional_int(config, "sliding_window", 0, int64_t{1} << 40, source.file).value_or(0);
  layer.rotary_dim = read_rotary_dim(source, layer.sizes.head_dim);
  layer.pairing = source.pairing;

  Builder b("phi3 (" + source.file + ")");
  layer.rope = b.rope_table(read_rope(source, layer.rotary_dim));
  return pre_norm_decoder(
      std::move(b), layer.sizes,
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return attention(builder, x, prefix, layer);
      },
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return mlp(builder, x, prefix, layer);
      });
}

}  // namespace

const Family kPhi3{"phi3", kArchitectures, build};

}  // namespace cairn::models
