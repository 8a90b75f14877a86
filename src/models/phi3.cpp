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

struct Rotation {
  nlohmann::json config;  // without the field that only this family reads
  double fraction = 1;    // of each head
};

// The rope fields in the form that rope_config.h reads: "yarn" and "su" were early names of longrope here.
Rotation read_rotation(const nlohmann::json& file_config, const std::string& file) {
  Rotation r{file_config, 1};
  const auto take_fraction = [&](nlohmann::json& object) {
    if (const auto own = formats::optional_number(object, "partial_rotary_factor", 0, 1, file))
      r.fraction = *own;
    object.erase("partial_rotary_factor");
  };
  take_fraction(r.config);
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!formats::optional_object(r.config, field, file)) continue;
    auto& scaling = r.config[field];
    take_fraction(scaling);
    for (const char* type : {"type", "rope_type"})
      if (scaling.contains(type) && (scaling[type] == "yarn" || scaling[type] == "su"))
        scaling[type] = "longrope";
  }
  return r;
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
  const auto rotation =
      read_rotation(with_defaults(file_source.config, {{"rms_norm_eps", 1e-5},
                                                       {"max_position_embeddings", 4096},
                                                       {"original_max_position_embeddings", 4096}}),
                    file_source.file);
  const auto& config = rotation.config;
  const Source source = with_config(file_source, config);
  Layer layer;
  layer.sizes = read_sizes(source);
  layer.activation = read_activation(source, "hidden_act", "silu");
  layer.window =
      formats::optional_int(config, "sliding_window", 0, int64_t{1} << 40, source.file).value_or(0);
  layer.rotary_dim =
      formats::optional_int(config, "rotary_dim", 2, layer.sizes.head_dim, source.file)  // GGUF
          .value_or(int64_t(double(layer.sizes.head_dim) * rotation.fraction));
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
