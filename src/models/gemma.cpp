// Gemma 2 and Gemma 3 (text): four norms per layer whose gains are stored minus one, scaled embeddings, local
// and global attention layers in turn. Gemma 2 caps attention scores and logits; Gemma 3 norms q and k
// instead and turns local layers with another theta. Gemma Team 2024, 2025.
#include <cmath>

#include "base/error.h"
#include "formats/json_fields.h"
#include "models/decoder.h"
#include "models/families.h"
#include "models/layer_windows.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Value;

constexpr std::string_view kGemma2Architectures[] = {"Gemma2ForCausalLM"};
constexpr std::string_view kGemma3Architectures[] = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"};

nlohmann::json defaults(bool gemma3) {
  nlohmann::json d = {{"vocab_size", 256000},
                      {"num_attention_heads", 8},
                      {"num_key_value_heads", 4},
                      {"head_dim", 256},
                      {"hidden_activation", "gelu_pytorch_tanh"},
                      {"max_position_embeddings", 8192},
                      {"rms_norm_eps", 1e-6},
                      {"tie_word_embeddings", true},
                      {"query_pre_attn_scalar", 256},
                      {"sliding_window", 4096}};
  if (gemma3) {
    d.update({{"vocab_size", 262208}, {"max_position_embeddings", 131072}, {"sliding_window_pattern", 6}});
  } else {
    d.update(
        {{"attn_logit_softcapping", 50.0}, {"final_logit_softcapping", 30.0}, {"sliding_window_pattern", 2}});
  }
  return d;
}

// Where the text model lies: alone, or inside a vision model's checkpoint of the older or newer layout.
struct Names {
  std::string model = "model.", head = "lm_head";
};
Names find_names(const Source& source) {
  if (source.has("language_model.model.embed_tokens.weight"))
    return {"language_model.model.", "language_model.lm_head"};
  if (source.has("model.language_model.embed_tokens.weight")) return {"model.language_model.", "lm_head"};
  return {};
}

struct Ropes {
  int32_t full = 0, local = 0;
};

Ropes read_gemma3_ropes(const Source& source, Builder& b, int64_t head_dim) {
  const auto& file = source.file;
  const auto* nested = formats::optional_object(source.config, "rope_parameters", file);
  if (!nested) {
    const double full = formats::optional_number(source.config, "rope_theta", 1e-3, 1e12, file).value_or(1e6);
    const double local =
        formats::optional_number(source.config, "rope_local_base_freq", 1e-3, 1e12, file).value_or(1e4);
    const auto* scaling = formats::optional_object(source.config, "rope_scaling", file);
    return {b.rope_table(read_rope(source, scaling, full, head_dim)),
            b.rope_table(read_rope(source, nullptr, local, head_dim))};
  }
  const auto table = [&](const char* type, double default_theta) {
    const auto* own = formats::optional_object(*nested, type, file);
    if (!own)
      fail(ErrorKind::invalid_file, "{}: rope_parameters has no {}; Gemma 3 needs one for each layer type",
           file, type);
    const double theta =
        formats::optional_number(*own, "rope_theta", 1e-3, 1e12, file).value_or(default_theta);
    return b.rope_table(read_rope(source, own, theta, head_dim));
  };
  return {table("full_attention", 1e6), table("sliding_attention", 1e4)};
}

float read_cap(const Source& source, std::string_view field) {
  return float(formats::optional_number(source.config, field, 1e-6, 1e30, source.file).value_or(0));
}

program::Program build(const Source& file_source, bool gemma3) {
  const auto config = with_defaults(file_source.config, defaults(gemma3));
  const Source source = with_config(file_source, config);
  const auto& file = source.file;
  const DecoderSizes s = read_sizes(source);
  const auto activation = read_activation(source, "hidden_activation", "gelu_pytorch_tanh");
  refuse_option(source, "use_bidirectional_attention");
  const float offset = 1 - source.norm_offset_stored;
  const int64_t pattern = formats::require_int(config, "sliding_window_pattern", 1, 1 << 20, file);
  const auto windows =
      layer_windows(source, s.layers,
                    formats::optional_int(config, "sliding_window", 1, int64_t{1} << 40, file).value_or(0),
                    [&](int64_t layer) { return (layer + 1) % pattern != 0; });
  const float attention_cap = read_cap(source, "attn_logit_softcapping");
  if (gemma3 && attention_cap != 0)
    fail(ErrorKind::unsupported, "{}: attn_logit_softcapping is {}; Gemma 3 has none", file, attention_cap);

  const auto names = find_names(source);
  Builder b((gemma3 ? "gemma3 (" : "gemma2 (") + file + ")");
  AttentionBlock attention;
  attention.sizes = s;
  attention.qkv_bias = attention.output_bias =
      formats::optional_bool(config, "attention_bias", file).value_or(false);
  attention.scale =
      float(1 / std::sqrt(formats::require_number(config, "query_pre_attn_scalar", 1e-6, 1e9, file)));
  attention.softcap = attention_cap;
  attention.pairing = source.pairing;
  Ropes ropes;
  if (gemma3) {
    ropes = read_gemma3_ropes(source, b, s.head_dim);
    attention.qk_norm_eps = s.norm_eps;
    attention.qk_norm_offset = offset;
  } else {
    ropes.full = ropes.local = b.rope_table(read_rope(source, s.head_dim));
  }

  const auto norm = [&](Value x, const std::string& name) { return b.rms_norm(x, name, s.norm_eps, offset); };
  const auto table = names.model + "embed_tokens";
  Value x = b.embed(b.ids(), table + ".weight", s.vocabulary, s.hidden, std::sqrt(float(s.hidden)));
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    b.layer(int32_t(layer));
    attention.window = windows[size_t(layer)];
    attention.rope = attention.window > 0 ? ropes.local : ropes.full;
    const auto prefix = names.model + "layers." + std::to_string(layer) + ".";
    const Value attended =
        attention_block(b, norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn.", attention);
    x = b.add(x, norm(attended, prefix + "post_attention_layernorm.weight"));
    const Value mlp = gated_mlp(b, norm(x, prefix + "pre_feedforward_layernorm.weight"), prefix + "mlp.",
                                s.intermediate, s.hidden, activation);
    x = b.add(x, norm(mlp, prefix + "post_feedforward_layernorm.weight"));
  }
  x = b.gather_logit_rows(x);
  x = norm(x, names.model + "norm.weight");
  b.logits(x, linear(s.tied ? table : names.head, s.vocabulary), 1,
           read_cap(source, "final_logit_softcapping"));
  return b.finish();
}

}  // namespace

const Family kGemma2{"gemma2", kGemma2Architectures,
                     [](const Source& source) { return build(source, false); }};
const Family kGemma3{"gemma3", kGemma3Architectures,
                     [](const Source& source) { return build(source, true); }};

}  // namespace cairn::models
