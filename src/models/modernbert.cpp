// ModernBERT (Warner et al. 2024): an encoder with norms before each block, rope, gated products, and local
// attention (local_attention / 2 tokens to both sides) in two layers of three.
#include <cmath>

#include "base/error.h"
#include "formats/json_fields.h"
#include "models/decoder.h"
#include "models/families.h"
#include "models/layer_windows.h"
#include "models/rope_config.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Stored;
using program::Value;

constexpr std::string_view kArchitectures[] = {"ModernBertModel", "ModernBertForMaskedLM"};

program::RopeTable read_table(const Source& source, const char* type, const char* theta_field,
                              double default_theta, int64_t head_dim) {
  const auto& config = source.config;
  const auto* parameters = formats::optional_object(config, "rope_parameters", source.file);
  const auto* own = parameters ? formats::optional_object(*parameters, type, source.file) : nullptr;
  const double theta =
      own ? formats::optional_number(*own, "rope_theta", 1e-3, 1e12, source.file).value_or(default_theta)
          : formats::optional_number(config, theta_field, 1e-3, 1e12, source.file).value_or(default_theta);
  return read_rope(source, own ? own : formats::optional_object(config, "rope_scaling", source.file), theta,
                   head_dim);
}

program::Program build(const Source& file_source) {
  const auto& file = file_source.file;
  const auto config = with_defaults(file_source.config, {{"vocab_size", 50368},
                                                         {"hidden_size", 768},
                                                         {"intermediate_size", 1152},
                                                         {"num_hidden_layers", 22},
                                                         {"num_attention_heads", 12},
                                                         {"max_position_embeddings", 8192},
                                                         {"norm_eps", 1e-5},
                                                         {"norm_bias", false},
                                                         {"attention_bias", false},
                                                         {"mlp_bias", false},
                                                         {"local_attention", 128},
                                                         {"global_attn_every_n_layers", 3}});
  const Source source = with_config(file_source, config);
  const DecoderSizes s = read_sizes(source);
  if (s.kv_heads != s.heads || s.head_dim * s.heads != s.hidden)
    fail(ErrorKind::invalid_file, "{}: {} heads of {} and {} KV heads do not make the hidden size {}", file,
         s.heads, s.head_dim, s.kv_heads, s.hidden);
  const float eps = float(formats::require_number(config, "norm_eps", 0, 0.99, file));
  const bool norm_bias = formats::require_bool(config, "norm_bias", file),
             attention_bias = formats::require_bool(config, "attention_bias", file),
             mlp_bias = formats::require_bool(config, "mlp_bias", file);
  const auto activation = read_activation(source, "hidden_activation", "gelu");
  const int64_t every = formats::require_int(config, "global_attn_every_n_layers", 1, 4096, file);
  // A window of w reaches w - 1 tokens far.
  const int64_t reach = formats::require_int(config, "local_attention", 2, 1 << 30, file) / 2;
  const auto windows =
      layer_windows(source, s.layers, reach + 1, [&](int64_t layer) { return layer % every != 0; });
  const std::string root = source.has("model.embeddings.tok_embeddings.weight") ? "model." : "";

  Builder b("modernbert (" + file + ")");
  const int32_t global =
      b.rope_table(read_table(source, "full_attention", "global_rope_theta", 160000, s.head_dim));
  const int32_t local =
      b.rope_table(read_table(source, "sliding_attention", "local_rope_theta", 10000, s.head_dim));
  const auto norm = [&](Value x, const std::string& name) {
    return b.layer_norm(x, name + ".weight", norm_bias ? std::optional<Stored>(name + ".bias") : std::nullopt,
                        eps);
  };
  // Part `index` of `of` equal parts of a fused layer.
  const auto part = [&](const std::string& name, int64_t index, int64_t of, int64_t out, bool bias) {
    Builder::Linear l{Stored(name + ".weight", index * out, of * out), out, std::nullopt};
    if (bias) l.bias = Stored(name + ".bias", index * out, of * out);
    return l;
  };
  Value x = norm(b.embed(b.ids(), root + "embeddings.tok_embeddings.weight", s.vocabulary, s.hidden),
                 root + "embeddings.norm");
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    b.layer(int32_t(layer));
    const auto prefix = root + "layers." + std::to_string(layer) + ".";
    const auto fused = prefix + "attn.Wqkv";
    const Builder::Linear projections[] = {part(fused, 0, 3, s.hidden, attention_bias),
                                           part(fused, 1, 3, s.hidden, attention_bias),
                                           part(fused, 2, 3, s.hidden, attention_bias)};
    const auto qkv = b.matmul(layer == 0 ? x : norm(x, prefix + "attn_norm"), projections);
    const int64_t window = windows[size_t(layer)];
    const auto turn = [&](Value v) {
      return b.rope(v, s.heads, s.head_dim, s.head_dim, source.pairing, window > 0 ? local : global);
    };
    Builder::AttentionOptions options;
    options.heads = options.kv_heads = s.heads;
    options.head_dim_k = options.head_dim_v = s.head_dim;
    options.scale = float(1 / std::sqrt(double(s.head_dim)));
    options.window = window;
    options.causal = false;
    const Value attended = b.attention(turn(qkv[0]), turn(qkv[1]), qkv[2], options);
    x = b.add(x, b.matmul(attended, linear(prefix + "attn.Wo", s.hidden, attention_bias)));
    const Builder::Linear inputs[] = {part(prefix + "mlp.Wi", 0, 2, s.intermediate, mlp_bias),
                                      part(prefix + "mlp.Wi", 1, 2, s.intermediate, mlp_bias)};
    const auto gate_up = b.matmul(norm(x, prefix + "mlp_norm"), inputs);
    x = b.add(x, b.matmul(b.gated(gate_up[0], gate_up[1], activation),
                          linear(prefix + "mlp.Wo", s.hidden, mlp_bias)));
  }
  b.layer(-1);
  b.hidden(norm(x, root + "final_norm"));
  return b.finish();
}

}  // namespace

const Family kModernBert{"modernbert", kArchitectures, build};

}  // namespace cairn::models
