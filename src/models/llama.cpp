// Llama 1 to 3.x and Mistral: pre-norm decoder, rotary positions, grouped-query attention, SwiGLU.
// Touvron et al. 2023; Grattafiori et al. 2024; Jiang et al. 2023 (sliding window).
#include "formats/json_fields.h"
#include "models/decoder.h"
#include "models/families.h"

namespace cairn::models {
namespace {

using program::Value;

constexpr std::string_view kArchitectures[] = {"LlamaForCausalLM", "MistralForCausalLM"};

program::Program build(const Source& source) {
  const DecoderSizes sizes = read_sizes(source);
  const auto activation = read_activation(source, "hidden_act", "silu");
  const bool mlp_bias = formats::optional_bool(source.config, "mlp_bias", source.file).value_or(false);
  program::Builder b("llama (" + source.file + ")");

  AttentionBlock attention;
  attention.sizes = sizes;
  attention.qkv_bias = attention.output_bias =
      formats::optional_bool(source.config, "attention_bias", source.file).value_or(false);
  attention.window =
      formats::optional_int(source.config, "sliding_window", 0, int64_t{1} << 40, source.file).value_or(0);
  attention.pairing = source.pairing;
  attention.rope = b.rope_table(read_rope(source, sizes.head_dim));

  Value x = b.embed(b.ids(), "model.embed_tokens.weight", sizes.vocabulary, sizes.hidden);
  for (int64_t layer = 0; layer < sizes.layers; ++layer) {
    b.layer(int32_t(layer));
    const auto prefix = "model.layers." + std::to_string(layer) + ".";
    const Value normed = b.rms_norm(x, prefix + "input_layernorm.weight", sizes.norm_eps);
    x = b.add(x, attention_block(b, normed, prefix + "self_attn.", attention));
    const Value mlp_in = b.rms_norm(x, prefix + "post_attention_layernorm.weight", sizes.norm_eps);
    x = b.add(x,
              gated_mlp(b, mlp_in, prefix + "mlp.", sizes.intermediate, sizes.hidden, activation, mlp_bias));
  }
  x = b.gather_logit_rows(x);
  x = b.rms_norm(x, "model.norm.weight", sizes.norm_eps);
  finish_with_head(b, x, sizes);
  return b.finish();
}

}  // namespace

const Family kLlama{"llama", kArchitectures, build};

}  // namespace cairn::models
