// Llama 1 to 3.x and Mistral: pre-norm decoder, rotary positions, grouped-query attention, SwiGLU.
// Touvron et al. 2023; Grattafiori et al. 2024; Jiang et al. 2023 (sliding window).
#include "base/error.h"
#include "formats/json_fields.h"
#include "models/decoder.h"
#include "models/families.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Value;

constexpr std::string_view kArchitectures[] = {"LlamaForCausalLM", "MistralForCausalLM"};

int64_t read_window(const Source& source) {
  return formats::optional_int(source.config, "sliding_window", 0, int64_t{1} << 40, source.file).value_or(0);
}

// Llama's config class knows no window and ignores one in the file; GGUF calls both families llama.
bool has_window(const Source& source) {
  return source.gguf || source.config["architectures"][0] == "MistralForCausalLM";
}

program::Program build(const Source& file_source) {
  const bool mistral = file_source.config["architectures"][0] == "MistralForCausalLM";
  const auto config = with_defaults(
      file_source.config, mistral ? nlohmann::json{{"sliding_window", 4096}, {"num_key_value_heads", 8}}
                                  : nlohmann::json::object());
  const Source source = with_config(file_source, config);
  const DecoderSizes sizes = read_sizes(source);
  const auto activation = read_activation(source, "hidden_act", "silu");
  const bool mlp_bias = formats::optional_bool(config, "mlp_bias", source.file).value_or(false);
  Builder b("llama (" + source.file + ")");

  AttentionBlock attention;
  attention.sizes = sizes;
  attention.qkv_bias = attention.output_bias =
      formats::optional_bool(config, "attention_bias", source.file).value_or(false);
  // llama.cpp's converter calls other families llama too, some of them without this bias.
  if (source.gguf) attention.output_bias = source.has("model.layers.0.self_attn.o_proj.bias");
  attention.window = has_window(source) ? read_window(source) : 0;
  attention.pairing = source.pairing;
  attention.rope = b.rope_table(read_rope(source, sizes.head_dim));
  return pre_norm_decoder(
      std::move(b), sizes,
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return attention_block(builder, x, prefix + "self_attn.", attention);
      },
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return gated_mlp(builder, x, prefix + "mlp.", sizes.intermediate, sizes.hidden, activation, mlp_bias);
      });
}

}  // namespace

const Family kLlama{"llama", kArchitectures, build};

}  // namespace cairn::models
