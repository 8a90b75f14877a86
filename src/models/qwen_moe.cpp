// Qwen2-MoE (q, k, v biases, a shared expert behind a gate) and Qwen3-MoE (norms on q and k, no shared
// expert). Layers may be dense: mlp_only_layers, or all but every decoder_sparse_step-th.
#include <algorithm>

#include "formats/json_fields.h"
#include "models/families.h"
#include "models/layer_windows.h"
#include "models/mixture.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Value;

constexpr std::string_view kQwen2Architectures[] = {"Qwen2MoeForCausalLM"};
constexpr std::string_view kQwen3Architectures[] = {"Qwen3MoeForCausalLM"};

nlohmann::json defaults(bool qwen3) {
  nlohmann::json d = {{"sliding_window", 4096},   {"norm_topk_prob", false}, {"decoder_sparse_step", 1},
                      {"num_experts_per_tok", 4}, {"num_experts", 60},       {"moe_intermediate_size", 1408}};
  if (qwen3) {
    d.update({{"num_key_value_heads", 4},
              {"num_experts_per_tok", 8},
              {"num_experts", 128},
              {"moe_intermediate_size", 768}});
  } else {
    d.update({{"shared_expert_intermediate_size", 5632}, {"qkv_bias", true}, {"max_window_layers", 28}});
  }
  return d;
}

// sigmoid(gate(x)) * mlp(x), added to what the chosen experts say.
Value with_shared_expert(Builder& b, Value x, Value routed, const std::string& prefix, int64_t intermediate,
                         program::Activation activation) {
  const Value shared = gated_mlp(b, x, prefix + "mlp.shared_expert.", intermediate, b.width(x), activation);
  const Value gate = b.matmul(x, linear(prefix + "mlp.shared_expert_gate", 1));
  return b.add(routed, b.gate_rows(shared, gate));
}

program::Program build(const Source& file_source, bool qwen3) {
  const auto config = with_defaults(file_source.config, defaults(qwen3));
  const Source source = with_config(file_source, config);
  const auto& file = source.file;
  const DecoderSizes sizes = read_sizes(source);
  MixtureBlock experts = read_mixture(source, "num_experts", "moe_intermediate_size");
  experts.renormalize = formats::require_bool(config, "norm_topk_prob", file);
  const int64_t step = formats::require_int(config, "decoder_sparse_step", 1, 1 << 20, file);
  const auto dense =
      formats::optional_ints(config, "mlp_only_layers", 0, 1 << 20, file).value_or(std::vector<int64_t>());
  const int64_t shared =
      qwen3 ? 0 : formats::require_int(config, "shared_expert_intermediate_size", 1, 1 << 24, file);

  const bool use_window = formats::optional_bool(config, "use_sliding_window", file).value_or(false);
  const int64_t window =
      use_window ? formats::optional_int(config, "sliding_window", 1, int64_t{1} << 40, file).value_or(0) : 0;
  // Qwen3-MoE's window, when used, is every layer's; Qwen2-MoE's is every second one's.
  std::vector<int64_t> windows(size_t(sizes.layers), window);
  if (!qwen3) {
    const int64_t last = formats::require_int(config, "max_window_layers", 0, 1 << 20, file);
    windows = layer_windows(source, sizes.layers, window,
                            [&](int64_t layer) { return window > 0 && layer % 2 == 0 && layer < last; });
  }

  Builder b((qwen3 ? "qwen3_moe (" : "qwen2_moe (") + file + ")");
  AttentionBlock attention;
  attention.sizes = sizes;
  attention.pairing = source.pairing;
  attention.rope = b.rope_table(read_rope(source, sizes.head_dim));
  if (qwen3) {
    attention.qk_norm_eps = sizes.norm_eps;
    attention.qkv_bias = attention.output_bias =
        formats::optional_bool(config, "attention_bias", file).value_or(false);
  } else {
    attention.qkv_bias = formats::require_bool(config, "qkv_bias", file);
  }
  return pre_norm_decoder(
      std::move(b), sizes,
      [&](Builder& builder, Value x, int64_t layer, const std::string& prefix) {
        attention.window = windows[size_t(layer)];
        return attention_block(builder, x, prefix + "self_attn.", attention);
      },
      [&](Builder& builder, Value x, int64_t layer, const std::string& prefix) {
        const bool sparse =
            (layer + 1) % step == 0 && std::find(dense.begin(), dense.end(), layer) == dense.end();
        if (!sparse)
          return gated_mlp(builder, x, prefix + "mlp.", sizes.intermediate, sizes.hidden, experts.activation);
        const Value routed = mixture(builder, x, prefix, experts);
        return shared == 0 ? routed
                           : with_shared_expert(builder, x, routed, prefix, shared, experts.activation);
      });
}

}  // namespace

const Family kQwen2Moe{"qwen2_moe", kQwen2Architectures, [](const Source& s) { return build(s, false); }};
const Family kQwen3Moe{"qwen3_moe", kQwen3Architectures, [](const Source& s) { return build(s, true); }};

}  // namespace cairn::models
