// OPT: learned positions that start at row 2, ReLU; the 350M model norms after each block and has narrower
// embeddings. Zhang et al. 2022.
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

constexpr std::string_view kArchitectures[] = {"OPTForCausalLM"};
constexpr float kNormEps = 1e-5f;         // not in the config
constexpr int64_t kFirstPositionRow = 2;  // two rows of the table were padding once

program::Program build(const Source& file_source) {
  const auto config = with_defaults(file_source.config, {{"do_layer_norm_before", true},
                                                         {"_remove_final_layer_norm", false},
                                                         {"enable_bias", true},
                                                         {"layer_norm_elementwise_affine", true},
                                                         {"tie_word_embeddings", true},
                                                         {"max_position_embeddings", 2048}});
  const Source source = with_config(file_source, config);
  const auto& file = source.file;
  const int64_t hidden = formats::require_int(config, "hidden_size", 1, 1 << 20, file);
  const int64_t layers = formats::require_int(config, "num_hidden_layers", 1, 4096, file);
  const int64_t heads = formats::require_int(config, "num_attention_heads", 1, 4096, file);
  const int64_t intermediate = formats::require_int(config, "ffn_dim", 1, 1 << 24, file);
  const int64_t vocabulary = formats::require_int(config, "vocab_size", 1, 1 << 24, file);
  const int64_t positions = formats::require_int(config, "max_position_embeddings", 1, 1 << 24, file);
  const int64_t embedding =
      formats::optional_int(config, "word_embed_proj_dim", 1, 1 << 20, file).value_or(hidden);
  if (hidden % heads != 0)
    fail(ErrorKind::invalid_file, "{}: hidden_size {} is not a multiple of num_attention_heads {}", file,
         hidden, heads);
  const bool before = formats::require_bool(config, "do_layer_norm_before", file);
  const bool final_norm = before && !formats::require_bool(config, "_remove_final_layer_norm", file);
  const bool bias = formats::require_bool(config, "enable_bias", file);
  const bool affine = formats::require_bool(config, "layer_norm_elementwise_affine", file);
  const auto activation = read_activation(source, "activation_function", "relu");
  const std::string root = source.has("decoder.embed_tokens.weight") ? "decoder." : "model.decoder.";

  Builder b("opt (" + file + ")");
  const auto norm = [&](Value x, const std::string& name) {
    return affine ? b.layer_norm(x, name + ".weight", name + ".bias", kNormEps)
                  : b.layer_norm(x, std::nullopt, std::nullopt, kNormEps);
  };
  Value x = b.embed(b.ids(), root + "embed_tokens.weight", vocabulary, embedding);
  if (embedding != hidden) x = b.matmul(x, linear(root + "project_in", hidden));
  x = b.add(x, b.embed(b.positions(), root + "embed_positions.weight", positions + kFirstPositionRow, hidden,
                       1, kFirstPositionRow));
  for (int64_t layer = 0; layer < layers; ++layer) {
    b.layer(int32_t(layer));
    const auto prefix = root + "layers." + std::to_string(layer) + ".";
    const auto part = [&](const char* name, int64_t out) { return linear(prefix + name, out, bias); };
    const auto attention_norm = prefix + "self_attn_layer_norm", mlp_norm = prefix + "final_layer_norm";

    const Builder::Linear projections[] = {part("self_attn.q_proj", hidden), part("self_attn.k_proj", hidden),
                                           part("self_attn.v_proj", hidden)};
    const auto qkv = b.matmul(before ? norm(x, attention_norm) : x, projections);
    Builder::AttentionOptions options;
    options.heads = options.kv_heads = heads;
    options.head_dim_k = options.head_dim_v = hidden / heads;
    options.scale = float(1 / std::sqrt(double(hidden / heads)));
    const Value attended = b.attention(qkv[0], qkv[1], qkv[2], options);
    x = b.add(x, b.matmul(attended, part("self_attn.out_proj", hidden)));
    if (!before) x = norm(x, attention_norm);

    const Value inner = b.matmul(before ? norm(x, mlp_norm) : x, part("fc1", intermediate));
    x = b.add(x, b.matmul(b.activate(inner, activation), part("fc2", hidden)));
    if (!before) x = norm(x, mlp_norm);
  }
  x = b.gather_logit_rows(x);
  if (final_norm) x = norm(x, root + "final_layer_norm");
  if (embedding != hidden) x = b.matmul(x, linear(root + "project_out", embedding));
  const bool tied = formats::require_bool(config, "tie_word_embeddings", file);
  b.logits(x, linear(tied ? root + "embed_tokens" : "lm_head", vocabulary));
  return b.finish();
}

}  // namespace

const Family kOpt{"opt", kArchitectures, build};

}  // namespace cairn::models
