// GPT-2: learned positions, layer norms with biases, one fused and transposed q/k/v weight, ungated MLP.
// Radford et al. 2019.
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

constexpr std::string_view kArchitectures[] = {"GPT2LMHeadModel"};

struct Sizes {
  int64_t hidden = 0, layers = 0, heads = 0, positions = 0, intermediate = 0, vocabulary = 0;
  float norm_eps = 1e-5f;
};

// GPT-2's own field, or the common name (GGUF).
int64_t read_size(const Source& source, const char* own, const char* common, int64_t most) {
  const auto value = formats::optional_int(source.config, common, 1, most, source.file);
  return value ? *value : formats::require_int(source.config, own, 1, most, source.file);
}

Sizes read_gpt2_sizes(const Source& source) {
  Sizes s;
  s.hidden = read_size(source, "n_embd", "hidden_size", 1 << 20);
  s.layers = read_size(source, "n_layer", "num_hidden_layers", 4096);
  s.heads = read_size(source, "n_head", "num_attention_heads", 4096);
  s.positions = read_size(source, "n_positions", "max_position_embeddings", 1 << 24);
  s.vocabulary = formats::require_int(source.config, "vocab_size", 1, 1 << 24, source.file);
  const auto inner = formats::optional_int(source.config, "n_inner", 1, 1 << 24, source.file);
  s.intermediate = inner ? *inner
                         : formats::optional_int(source.config, "intermediate_size", 1, 1 << 24, source.file)
                               .value_or(4 * s.hidden);
  s.norm_eps =
      float(formats::optional_number(source.config, "layer_norm_epsilon", 0, 1, source.file).value_or(1e-5));
  if (s.hidden % s.heads != 0)
    fail(ErrorKind::invalid_file, "{}: n_embd {} is not a multiple of n_head {}", source.file, s.hidden,
         s.heads);
  return s;
}

// Rows first .. first + out of a Conv1D of `rows` outputs, stored [in, rows], and its bias.
Builder::Linear conv1d(const std::string& name, int64_t out, int64_t first = 0, int64_t rows = 0) {
  Stored weight(name + ".weight", first, rows);
  weight.transposed = true;
  return {weight, out, Stored(name + ".bias", first, rows)};
}

program::Program build(const Source& source) {
  const Sizes s = read_gpt2_sizes(source);
  const auto& config = source.config;
  const auto activation = read_activation(source, "activation_function", "gelu_new");
  refuse_option(source, "add_cross_attention");
  const bool scaled = formats::optional_bool(config, "scale_attn_weights", source.file).value_or(true);
  const bool by_layer =
      formats::optional_bool(config, "scale_attn_by_inverse_layer_idx", source.file).value_or(false);
  const bool tied = formats::optional_bool(config, "tie_word_embeddings", source.file).value_or(true);
  // The first published files lack the prefix that the library has used since.
  const std::string root = source.gguf || source.has("transformer.wte.weight") ? "transformer." : "";

  Builder b("gpt2 (" + source.file + ")");
  const auto norm = [&](Value x, const std::string& name) {
    return b.layer_norm(x, name + ".weight", name + ".bias", s.norm_eps);
  };
  Value x = b.add(b.embed(b.ids(), root + "wte.weight", s.vocabulary, s.hidden),
                  b.embed(b.positions(), root + "wpe.weight", s.positions, s.hidden));
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    b.layer(int32_t(layer));
    const auto prefix = root + "h." + std::to_string(layer) + ".";
    const auto fused = prefix + "attn.c_attn";
    const Builder::Linear parts[] = {conv1d(fused, s.hidden, 0, 3 * s.hidden),
                                     conv1d(fused, s.hidden, s.hidden, 3 * s.hidden),
                                     conv1d(fused, s.hidden, 2 * s.hidden, 3 * s.hidden)};
    const auto qkv = b.matmul(norm(x, prefix + "ln_1"), parts);
    Builder::AttentionOptions options;
    options.heads = options.kv_heads = s.heads;
    options.head_dim_k = options.head_dim_v = s.hidden / s.heads;
    options.scale = float((scaled ? 1 / std::sqrt(double(options.head_dim_k)) : 1.0) /
                          (by_layer ? double(layer + 1) : 1.0));
    const Value attended = b.attention(qkv[0], qkv[1], qkv[2], options);
    x = b.add(x, b.matmul(attended, conv1d(prefix + "attn.c_proj", s.hidden)));
    const Value inner = b.matmul(norm(x, prefix + "ln_2"), conv1d(prefix + "mlp.c_fc", s.intermediate));
    x = b.add(x, b.matmul(b.activate(inner, activation), conv1d(prefix + "mlp.c_proj", s.hidden)));
  }
  x = norm(b.gather_logit_rows(x), root + "ln_f");
  b.logits(x, linear(tied ? root + "wte" : "lm_head", s.vocabulary));
  return b.finish();
}

}  // namespace

const Family kGpt2{"gpt2", kArchitectures, build};

}  // namespace cairn::models
