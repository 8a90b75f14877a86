#include "models/gguf_translation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "formats/json_fields.h"

namespace cairn::models {
namespace {

using nlohmann::json;

struct Architecture {
  std::string_view gguf, hugging_face;
};

constexpr Architecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM"},   {"qwen2", "Qwen2ForCausalLM"},       {"qwen3", "Qwen3ForCausalLM"},
    {"gemma2", "Gemma2ForCausalLM"}, {"gemma3", "Gemma3ForCausalLM"},     {"phi3", "Phi3ForCausalLM"},
    {"gpt2", "GPT2LMHeadModel"},     {"qwen3moe", "Qwen3MoeForCausalLM"}, {"qwen2moe", "Qwen2MoeForCausalLM"},
    {"olmoe", "OlmoeForCausalLM"},
};

// GGUF key after "<arch>." -> config.json key.
constexpr std::pair<std::string_view, std::string_view> kKeys[] = {
    {"block_count", "num_hidden_layers"},
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon"},
    {"attention.sliding_window", "sliding_window"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"attention.clamp_kqv", "clip_qkv"},
    {"rope.freq_base", "rope_theta"},
    {"vocab_size", "vocab_size"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
};

// One architecture's metadata: "block_count" is "<architecture>.block_count".
class Metadata {
 public:
  Metadata(const formats::Checkpoint& checkpoint, std::string architecture)
      : checkpoint_(checkpoint), prefix_(std::move(architecture) + ".") {}

  const json* find(std::string_view key) const {
    const auto found = checkpoint_.config->find(prefix_ + std::string(key));
    return found == checkpoint_.config->end() ? nullptr : &*found;
  }
  std::optional<double> number(const char* key) const {
    return formats::optional_number(*checkpoint_.config, prefix_ + key, -1e30, 1e30, file());
  }
  std::optional<int64_t> integer(const char* key) const {
    return formats::optional_int(*checkpoint_.config, prefix_ + key, 0, int64_t{1} << 40, file());
  }
  std::string file() const { return checkpoint_.path.string(); }
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  // A vector of f32 as numbers; null when there is no such tensor.
  json vector(const char* tensor_name) const {
    const auto* tensor = checkpoint_.find(tensor_name);
    if (!tensor) return nullptr;
    if (tensor->shape.size() != 1 || tensor->codec != codecs::CodecId::f32)
      fail(ErrorKind::invalid_file, "{}: tensor {} must be one row of f32", file(), tensor_name);
    std::vector<float> values(size_t(tensor->shape[0]));
    std::memcpy(values.data(), tensor->bytes.data(), values.size() * sizeof(float));
    return values;
  }

 private:
  const formats::Checkpoint& checkpoint_;
  std::string prefix_;
};

// Rope scaling as metadata; a rope_freqs tensor (Llama 3) is handled where tensors are read.
void translate_rope(const Metadata& metadata, json& config) {
  if (const auto original = metadata.integer("rope.scaling.original_context_length"))
    config["original_max_position_embeddings"] = *original;
  if (json long_factor = metadata.vector("rope_factors_long.weight"); !long_factor.is_null()) {
    json scaling = {{"rope_type", "longrope"},
                    {"long_factor", std::move(long_factor)},
                    {"short_factor", metadata.vector("rope_factors_short.weight")}};
    if (const auto factor = metadata.number("rope.scaling.attn_factor"))
      scaling["attention_factor"] = *factor;
    config["rope_scaling"] = std::move(scaling);
    return;
  }
  const json* type = metadata.find("rope.scaling.type");
  const json* linear = metadata.find("rope.scale_linear");  // before there were types
  if (!type && linear) config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", *linear}};
  if (!type || *type == "none") return;
  json scaling = {{"rope_type", *type}};
  constexpr std::pair<const char*, const char*> kNumbers[] = {
      {"rope.scaling.factor", "factor"},
      {"rope.scaling.yarn_attn_factor", "attention_factor"},
      {"rope.scaling.yarn_beta_fast", "beta_fast"},
      {"rope.scaling.yarn_beta_slow", "beta_slow"},
  };
  for (const auto& [gguf, hugging_face] : kNumbers)
    if (const auto number = metadata.number(gguf)) scaling[hugging_face] = *number;
  // llama.cpp multiplies this one with YaRN's own factor.
  const auto multiplier = metadata.number("rope.scaling.attn_factor");
  if (multiplier && *type == "yarn" && !scaling.contains("attention_factor"))
    scaling["attention_factor"] =
        *multiplier * (1 + 0.1 * std::log(std::max(1.0, scaling.value("factor", 1.0))));
  config["rope_scaling"] = std::move(scaling);
}

// Keys that change what the model computes in ways no family here does. harmless: the value that changes
// nothing.
void refuse_unsupported(const Metadata& metadata) {
  const std::pair<const char*, json> kHarmless[] = {
      {"attention.causal", true},
      {"attention.scale", 0.0},
      {"rope.scaling.yarn_log_multiplier", 0.0},
      {"expert_weights_scale", 1.0},
      {"expert_gating_func", 1},
      {"expert_group_count", 1},
      {"logit_scale", 1.0},
      {"attention.max_alibi_bias", 0.0},
      {"rope.scaling.yarn_ext_factor", 1.0},
  };
  for (const auto& [key, harmless] : kHarmless)
    if (const json* value = metadata.find(key); value && *value != harmless && *value != 0 && *value != -1.0)
      fail(ErrorKind::unsupported, "{}: {} is {}, an option cairn does not have", metadata.file(),
           metadata.key(key), value->dump());
}

// What llama.cpp knows from the architecture and the layer count instead of from a key.
void translate_gemma(const Metadata& metadata, bool gemma3, json& config) {
  const int64_t layers = metadata.integer("block_count").value_or(0);
  const bool largest = layers == (gemma3 ? 62 : 46);  // 27B scales by its width per head
  const auto hidden = metadata.integer("embedding_length"), heads = metadata.integer("attention.head_count");
  if (largest && hidden && heads && *heads > 0)
    config["query_pre_attn_scalar"] = *hidden / *heads;
  else if (config.contains("head_dim"))
    config["query_pre_attn_scalar"] = config["head_dim"];
  if (const json* theta = metadata.find("rope.freq_base_swa")) config["rope_local_base_freq"] = *theta;
  const json* pattern = metadata.find("attention.sliding_window_pattern");
  if (pattern && pattern->is_array()) {
    for (const json& slides : *pattern)
      config["layer_types"].push_back(slides == true || slides == 1 ? "sliding_attention" : "full_attention");
  } else if (pattern) {
    config["sliding_window_pattern"] = *pattern;
  }
  const auto window = metadata.integer("attention.sliding_window");
  if (gemma3 && window.value_or(0) == 0) config["sliding_window_pattern"] = 1;  // no layer slides
}

void translate_experts(const Metadata& metadata, const std::string& architecture, json& config) {
  const auto experts = metadata.integer("expert_count");
  if (!experts || *experts == 0) return;
  // Mixtral files say llama and have experts.
  if (architecture == "llama") config["architectures"] = {"MixtralForCausalLM"};
  config[architecture == "llama" ? "num_local_experts" : "num_experts"] = *experts;
  config["norm_topk_prob"] = architecture == "qwen3moe";
  if (const json* renormalize = metadata.find("expert_weights_norm")) config["norm_topk_prob"] = *renormalize;
  const auto all = metadata.integer("feed_forward_length"), used = metadata.integer("expert_used_count");
  if (!config.contains("moe_intermediate_size") && all && used && *used > 0)
    config["moe_intermediate_size"] = *all / *used;
}

}  // namespace

json config_of_gguf(const formats::Checkpoint& checkpoint) {
  const json& metadata = *checkpoint.config;
  const auto file = checkpoint.path.string();
  const auto found = metadata.find("general.architecture");
  if (found == metadata.end() || !found->is_string())
    fail(ErrorKind::invalid_file, "{}: the key general.architecture is missing or no string", file);
  const auto arch = found->get<std::string>();
  json config;
  std::string known;
  for (const auto& row : kArchitectures) {
    if (row.gguf == arch) config["architectures"] = {row.hugging_face};
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.gguf);
  }
  if (config.empty())
    fail(ErrorKind::unsupported, "{}: the architecture '{}' is not supported; cairn runs {}", file, arch,
         known);

  for (const auto& [gguf, hugging_face] : kKeys) {
    const auto value = metadata.find(arch + "." + std::string(gguf));
    if (value != metadata.end()) config[std::string(hugging_face)] = *value;
  }
  const Metadata of_arch(checkpoint, arch);
  refuse_unsupported(of_arch);
  translate_experts(of_arch, arch, config);
  translate_rope(of_arch, config);
  // Biases show by being there.
  config["attention_bias"] = checkpoint.find("blk.0.attn_q.bias") != nullptr;
  config["mlp_bias"] = checkpoint.find("blk.0.ffn_gate.bias") != nullptr;
  if (arch == "gemma2" || arch == "gemma3") translate_gemma(of_arch, arch == "gemma3", config);
  if (const json* rotary = of_arch.find("rope.dimension_count")) config["rotary_dim"] = *rotary;
  const json *key = of_arch.find("attention.key_length"), *value = of_arch.find("attention.value_length");
  if (key && value && *key != *value)
    fail(ErrorKind::unsupported, "{}: {} is {} and {} {}; cairn needs keys and values of one length", file,
         of_arch.key("attention.key_length"), key->dump(), of_arch.key("attention.value_length"),
         value->dump());
  if (const auto* table = checkpoint.find("token_embd.weight"); table && table->shape.size() == 2)
    config["vocab_size"] = table->shape[0];
  config["tie_word_embeddings"] = checkpoint.find("output.weight") == nullptr;
  return config;
}

std::optional<std::string> gguf_tensor_name(std::string_view name, std::string_view architecture) {
  constexpr std::pair<std::string_view, std::string_view> kGemmaNorms[] = {
      {"post_attention_layernorm", "post_attention_norm"},
      {"pre_feedforward_layernorm", "ffn_norm"},
      {"post_feedforward_layernorm", "post_ffw_norm"},
  };
  constexpr std::pair<std::string_view, std::string_view> kTop[] = {
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"transformer.wte", "token_embd"},
      {"transformer.wpe", "position_embd"},
      {"transformer.ln_f", "output_norm"},
  };
  constexpr std::pair<std::string_view, std::string_view> kLayer[] = {
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.qkv_proj", "attn_qkv"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.gate_up_proj", "ffn_up"},
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate", "ffn_gate_inp"},
      {"mlp.experts.*.gate_proj", "ffn_gate_exps"},
      {"mlp.experts.*.up_proj", "ffn_up_exps"},
      {"mlp.experts.*.down_proj", "ffn_down_exps"},
      {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
      {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
      {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
      {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
      {"block_sparse_moe.gate", "ffn_gate_inp"},
      {"block_sparse_moe.experts.*.w1", "ffn_gate_exps"},
      {"block_sparse_moe.experts.*.w3", "ffn_up_exps"},
      {"block_sparse_moe.experts.*.w2", "ffn_down_exps"},
      {"attn.c_attn", "attn_qkv"},
      {"attn.c_proj", "attn_output"},
      {"mlp.c_fc", "ffn_up"},
      {"mlp.c_proj", "ffn_down"},
      {"ln_1", "attn_norm"},
      {"ln_2", "ffn_norm"},
  };
  std::string_view suffix;
  for (std::string_view end : {".weight", ".bias"})
    if (name.ends_with(end)) suffix = end;
  const auto stem = name.substr(0, name.size() - suffix.size());
  for (const auto& [hugging_face, gguf] : kTop)
    if (stem == hugging_face) return std::string(gguf) + std::string(suffix);
  for (std::string_view prefix : {"model.layers.", "transformer.h."}) {
    if (!stem.starts_with(prefix)) continue;
    const auto rest = stem.substr(prefix.size());
    const auto dot = rest.find('.');
    if (dot == std::string_view::npos) return std::nullopt;
    const auto number = rest.substr(0, dot), part = rest.substr(dot + 1);
    if (architecture.starts_with("gemma"))
      for (const auto& [hugging_face, gguf] : kGemmaNorms)
        if (part == hugging_face) return fmt::format("blk.{}.{}{}", number, gguf, suffix);
    for (const auto& [hugging_face, gguf] : kLayer)
      if (part == hugging_face) return fmt::format("blk.{}.{}{}", number, gguf, suffix);
  }
  return std::nullopt;
}

}  // namespace cairn::models
