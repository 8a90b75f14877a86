// Qwen 2, 2.5 (biases on q, k, v) and Qwen 3 (RMS norm on each head of q and k instead).
// Yang et al. 2024; Qwen Team 2025.
#include "formats/json_fields.h"
#include "models/decoder.h"
#include "models/families.h"
#include "models/layer_windows.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Value;

constexpr std::string_view kQwen2Architectures[] = {"Qwen2ForCausalLM"};
constexpr std::string_view kQwen3Architectures[] = {"Qwen3ForCausalLM"};

program::Program build(const Source& file_source, bool qwen3) {
  nlohmann::json defaults = {{"sliding_window", 4096}, {"max_window_layers", 28}};
  if (qwen3) defaults["head_dim"] = 128;
  const auto config = with_defaults(file_source.config, defaults);
  const Source source = with_config(file_source, config);
  const DecoderSizes sizes = read_sizes(source);
  const auto activation = read_activation(source, "hidden_act", "silu");
  const bool use_window = formats::optional_bool(config, "use_sliding_window", source.file).value_or(false);
  const int64_t window =
      use_window
          ? formats::optional_int(config, "sliding_window", 1, int64_t{1} << 40, source.file).value_or(0)
          : 0;
  const int64_t first_sliding = formats::require_int(config, "max_window_layers", 0, 1 << 20, source.file);
  const auto windows = layer_windows(source, sizes.layers, window,
                                     [&](int64_t layer) { return window > 0 && layer >= first_sliding; });

  Builder b((qwen3 ? "qwen3 (" : "qwen2 (") + source.file + ")");
  AttentionBlock attention;
  attention.sizes = sizes;
  attention.pairing = source.pairing;
  attention.rope = b.rope_table(read_rope(source, sizes.head_dim));
  if (qwen3) {
    attention.qk_norm_eps = sizes.norm_eps;
    attention.qkv_bias = attention.output_bias =
        formats::optional_bool(config, "attention_bias", source.file).value_or(false);
  } else {
    attention.qkv_bias = true;
  }
  return pre_norm_decoder(
      std::move(b), sizes,
      [&](Builder& builder, Value x, int64_t layer, const std::string& prefix) {
        attention.window = windows[size_t(layer)];
        return attention_block(builder, x, prefix + "self_attn.", attention);
      },
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return gated_mlp(builder, x, prefix + "mlp.", sizes.intermediate, sizes.hidden, activation);
      });
}

}  // namespace

const Family kQwen2{"qwen2", kQwen2Architectures, [](const Source& source) { return build(source, false); }};
const Family kQwen3{"qwen3", kQwen3Architectures, [](const Source& source) { return build(source, true); }};

}  // namespace cairn::models
