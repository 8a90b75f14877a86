// Mixtral: Mistral's attention, eight experts of which two answer each token. Jiang et al. 2024.
#include "formats/json_fields.h"
#include "models/families.h"
#include "models/mixture.h"

namespace cairn::models {
namespace {

using program::Builder;
using program::Value;

constexpr std::string_view kArchitectures[] = {"MixtralForCausalLM"};

program::Program build(const Source& file_source) {
  const auto config = with_defaults(file_source.config, {{"num_key_value_heads", 8},
                                                         {"rms_norm_eps", 1e-5},
                                                         {"num_local_experts", 8},
                                                         {"num_experts_per_tok", 2}});
  const Source source = with_config(file_source, config);
  const DecoderSizes sizes = read_sizes(source);
  MixtureBlock experts = read_mixture(source, "num_local_experts", "intermediate_size");
  experts.renormalize = true;
  experts.router = "block_sparse_moe.gate";
  experts.gate = "block_sparse_moe.experts.*.w1";
  experts.up = "block_sparse_moe.experts.*.w3";
  experts.down = "block_sparse_moe.experts.*.w2";

  Builder b("mixtral (" + source.file + ")");
  AttentionBlock attention;
  attention.sizes = sizes;
  attention.window =
      formats::optional_int(config, "sliding_window", 0, int64_t{1} << 40, source.file).value_or(0);
  attention.pairing = source.pairing;
  attention.rope = b.rope_table(read_rope(source, sizes.head_dim));
  return pre_norm_decoder(
      std::move(b), sizes,
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return attention_block(builder, x, prefix + "self_attn.", attention);
      },
      [&](Builder& builder, Value x, int64_t, const std::string& prefix) {
        return mixture(builder, x, prefix, experts);
      });
}

}  // namespace

const Family kMixtral{"mixtral", kArchitectures, build};

}  // namespace cairn::models
