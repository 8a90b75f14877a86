// Encoders with a norm after each block: BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019), XLM-R and
// DistilBERT (Sanh et al. 2019). Every token sees all tokens of its text; the rows of the last layer are what
// embeddings are pooled from. Heads for masked words or classes are not part of the program.
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

constexpr std::string_view kBertArchitectures[] = {
    "BertModel",       "BertForMaskedLM",       "RobertaModel",   "RobertaForMaskedLM",
    "XLMRobertaModel", "XLMRobertaForMaskedLM", "CamembertModel", "CamembertForMaskedLM",
};
constexpr std::string_view kDistilBertArchitectures[] = {"DistilBertModel", "DistilBertForMaskedLM"};

struct Encoder {
  int64_t hidden = 0, layers = 0, heads = 0, intermediate = 0, vocabulary = 0, positions = 0, types = 0;
  int64_t first_position = 0;  // RoBERTa's positions start behind the padding token's row
  float norm_eps = 1e-12f;
  program::Activation activation = program::Activation::gelu;
};

// Where a family keeps what; all below the root.
struct Names {
  std::string root;    // "", "bert.": before all names
  std::string layers;  // "encoder.layer."
  std::string query, key, value, attention_output, attention_norm, up, down, output_norm;
};

// Norms of files from before 2019 are called gamma and beta.
Value norm(Builder& b, const Source& source, Value x, const std::string& name, float eps) {
  const bool old = !source.has(name + ".weight") && source.has(name + ".gamma");
  return b.layer_norm(x, name + (old ? ".gamma" : ".weight"), name + (old ? ".beta" : ".bias"), eps);
}

program::Program build(const Source& source, const char* family, const Encoder& e, const Names& names) {
  if (e.hidden % e.heads != 0)
    fail(ErrorKind::invalid_file, "{}: the hidden size {} is not a multiple of the {} attention heads",
         source.file, e.hidden, e.heads);
  if (e.first_position >= e.positions)
    fail(ErrorKind::invalid_file,
         "{}: max_position_embeddings is {}; positions begin at {} (pad_token_id + 1), so none are left",
         source.file, e.positions, e.first_position);
  Builder b(std::string(family) + " (" + source.file + ")");
  const auto table = [&](const char* name) { return names.root + "embeddings." + name + ".weight"; };
  Value x = b.embed(b.ids(), table("word_embeddings"), e.vocabulary, e.hidden);
  if (e.types > 0) x = b.add(x, b.embed(Value{}, table("token_type_embeddings"), e.types, e.hidden));
  x = b.add(x,
            b.embed(b.positions(), table("position_embeddings"), e.positions, e.hidden, 1, e.first_position));
  x = norm(b, source, x, names.root + "embeddings.LayerNorm", e.norm_eps);
  for (int64_t layer = 0; layer < e.layers; ++layer) {
    b.layer(int32_t(layer));
    const auto prefix = names.root + names.layers + std::to_string(layer) + ".";
    const auto part = [&](const std::string& name, int64_t out) { return linear(prefix + name, out, true); };
    const Builder::Linear projections[] = {part(names.query, e.hidden), part(names.key, e.hidden),
                                           part(names.value, e.hidden)};
    const auto qkv = b.matmul(x, projections);
    Builder::AttentionOptions options;
    options.heads = options.kv_heads = e.heads;
    options.head_dim_k = options.head_dim_v = e.hidden / e.heads;
    options.scale = float(1 / std::sqrt(double(e.hidden / e.heads)));
    options.causal = false;
    const Value attended = b.attention(qkv[0], qkv[1], qkv[2], options);
    x = b.add(x, b.matmul(attended, part(names.attention_output, e.hidden)));
    x = norm(b, source, x, prefix + names.attention_norm, e.norm_eps);
    const Value inner = b.activate(b.matmul(x, part(names.up, e.intermediate)), e.activation);
    x = b.add(x, b.matmul(inner, part(names.down, e.hidden)));
    x = norm(b, source, x, prefix + names.output_norm, e.norm_eps);
  }
  b.hidden(x);
  return b.finish();
}

int64_t size(const Source& source, const char* field, int64_t most) {
  return formats::require_int(source.config, field, 1, most, source.file);
}

program::Program build_bert(const Source& file_source) {
  const auto& file = file_source.file;
  const auto architectures = formats::optional_strings(file_source.config, "architectures", file);
  const bool roberta =
      architectures && !architectures->empty() && !architectures->front().starts_with("Bert");
  const auto config = with_defaults(file_source.config, {{"vocab_size", 30522},
                                                         {"hidden_size", 768},
                                                         {"num_hidden_layers", 12},
                                                         {"num_attention_heads", 12},
                                                         {"intermediate_size", 3072},
                                                         {"max_position_embeddings", 512},
                                                         {"type_vocab_size", 2},
                                                         {"layer_norm_eps", 1e-12},
                                                         {"pad_token_id", roberta ? 1 : 0}});
  const Source source = with_config(file_source, config);
  for (const char* field : {"is_decoder", "add_cross_attention"}) refuse_option(source, field);
  const auto position =
      formats::optional_string(config, "position_embedding_type", file).value_or("absolute");
  if (position != "absolute")
    fail(ErrorKind::unsupported, "{}: position_embedding_type is '{}'; cairn computes 'absolute'", file,
         position);
  Encoder e;
  e.hidden = size(source, "hidden_size", 1 << 20);
  e.layers = size(source, "num_hidden_layers", 4096);
  e.heads = size(source, "num_attention_heads", 4096);
  e.intermediate = size(source, "intermediate_size", 1 << 24);
  e.vocabulary = size(source, "vocab_size", 1 << 24);
  e.positions = size(source, "max_position_embeddings", 1 << 24);
  e.types = size(source, "type_vocab_size", 1 << 16);
  e.norm_eps = float(formats::require_number(config, "layer_norm_eps", 0, 0.99, file));
  e.activation = read_activation(source, "hidden_act", "gelu");
  if (roberta) e.first_position = formats::require_int(config, "pad_token_id", 0, 1 << 24, file) + 1;
  Names names{"",
              "encoder.layer.",
              "attention.self.query",
              "attention.self.key",
              "attention.self.value",
              "attention.output.dense",
              "attention.output.LayerNorm",
              "intermediate.dense",
              "output.dense",
              "output.LayerNorm"};
  for (const char* root : {"bert.", "roberta."})
    if (source.has(std::string(root) + "embeddings.word_embeddings.weight")) names.root = root;
  return build(source, roberta ? "roberta" : "bert", e, names);
}

program::Program build_distilbert(const Source& file_source) {
  const auto config = with_defaults(file_source.config, {{"vocab_size", 30522},
                                                         {"dim", 768},
                                                         {"n_layers", 6},
                                                         {"n_heads", 12},
                                                         {"hidden_dim", 3072},
                                                         {"max_position_embeddings", 512}});
  const Source source = with_config(file_source, config);
  Encoder e;
  e.hidden = size(source, "dim", 1 << 20);
  e.layers = size(source, "n_layers", 4096);
  e.heads = size(source, "n_heads", 4096);
  e.intermediate = size(source, "hidden_dim", 1 << 24);
  e.vocabulary = size(source, "vocab_size", 1 << 24);
  e.positions = size(source, "max_position_embeddings", 1 << 24);
  e.activation = read_activation(source, "activation", "gelu");
  Names names{"",
              "transformer.layer.",
              "attention.q_lin",
              "attention.k_lin",
              "attention.v_lin",
              "attention.out_lin",
              "sa_layer_norm",
              "ffn.lin1",
              "ffn.lin2",
              "output_layer_norm"};
  if (source.has("distilbert.embeddings.word_embeddings.weight")) names.root = "distilbert.";
  return build(source, "distilbert", e, names);
}

}  // namespace

const Family kBert{"bert", kBertArchitectures, build_bert};
const Family kDistilBert{"distilbert", kDistilBertArchitectures, build_distilbert};

}  // namespace cairn::models
