#include "models/gguf_translation.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

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
    {"expert_count", "num_local_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
};

// Rope scaling as metadata; a rope_freqs tensor (Llama 3) is handled where tensors are read.
void translate_rope(const json& metadata, const std::string& arch, json& config) {
  const auto get = [&](const char* key) -> const json* {
    const auto found = metadata.find(arch + ".rope." + key);
    return found == metadata.end() ? nullptr : &*found;
  };
  const json* type = get("scaling.type");
  if (!type || *type == "none") return;
  json scaling = {{"rope_type", *type}};
  if (const json* factor = get("scaling.factor")) scaling["factor"] = *factor;
  if (const json* length = get("scaling.original_context_length"))
    scaling["original_max_position_embeddings"] = *length;
  if (const json* factor = get("scaling.attn_factor")) scaling["attention_factor"] = *factor;
  config["rope_scaling"] = scaling;
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
  // Mixtral files say llama and have experts.
  const bool experts = config.contains("num_local_experts") && config["num_local_experts"] != 0;
  if (arch == "llama" && experts) config["architectures"] = {"MixtralForCausalLM"};
  if (arch != "llama" && experts) config["num_experts"] = config["num_local_experts"];
  if (const auto rotary = metadata.find(arch + ".rope.dimension_count"); rotary != metadata.end())
    config["rotary_dim"] = *rotary;
  translate_rope(metadata, arch, config);
  if (const auto* table = checkpoint.find("token_embd.weight"); table && table->shape.size() == 2)
    config["vocab_size"] = table->shape[0];
  config["tie_word_embeddings"] = checkpoint.find("output.weight") == nullptr;
  return config;
}

std::optional<std::string> gguf_tensor_name(std::string_view name) {
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
    for (const auto& [hugging_face, gguf] : kLayer)
      if (part == hugging_face) return fmt::format("blk.{}.{}{}", number, gguf, suffix);
  }
  return std::nullopt;
}

}  // namespace cairn::models
