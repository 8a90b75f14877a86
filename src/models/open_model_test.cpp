// What a person reads when a model's files do not fit together. Each case is a golden model with one thing
// changed.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "formats/testing.h"
#include "models/family_goldens.h"
#include "models/model.h"

namespace cairn::models {
namespace {

using formats::testing::Bytes;
using formats::testing::message_of;
using formats::testing::TemporaryFolder;
using nlohmann::json;
using namespace std::string_literals;

std::string read(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// The error with the folder's path as "MODEL", or "opened".
std::string outcome(const std::filesystem::path& model, const std::filesystem::path& folder) {
  std::string message = message_of([&] { open_model(model); });
  if (message.empty()) return "opened";
  for (size_t at; (at = message.find(folder.string())) != std::string::npos;)
    message.replace(at, folder.string().size(), "MODEL");
  return message;
}

using Edit = std::function<void(json&)>;

// A golden folder whose config.json and safetensors header went through the edits.
std::string edited(const std::string& name, const Edit& config, const Edit& header = {}) {
  const auto source = testing::goldens_folder() / name;
  const TemporaryFolder folder;
  json fields = json::parse(read(source / "config.json"));
  if (config) config(fields);
  folder.write("config.json", fields.dump());
  const std::string weights = read(source / "model.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, weights.data(), sizeof header_bytes);
  json tensors = json::parse(weights.substr(8, header_bytes));
  if (header) header(tensors);
  const std::string text = tensors.dump();
  folder.write("model.safetensors",
               Bytes().put(uint64_t{text.size()}).raw(text).string() + weights.substr(8 + header_bytes));
  return outcome(folder.path(), folder.path());
}

std::string with(const std::string& name, const char* field, const json& value) {
  return edited(name, [&](json& config) { config[field] = value; });
}
std::string without(const std::string& name, const char* field) {
  return edited(name, [&](json& config) { config.erase(field); });
}

TEST(OpenModel, SaysWhichTensorIsMissingOrMisshapen) {
  EXPECT_EQ(edited("llama-mha", {}), "opened");
  EXPECT_EQ(
      edited("llama-mha", {},
             [](json& h) {
               h["other"] = h["model.layers.1.mlp.up_proj.weight"];
               h.erase("model.layers.1.mlp.up_proj.weight");
             }),
      "MODEL: tensor model.layers.1.mlp.up_proj.weight is missing; a llama model needs it (is a file or a "
      "shard incomplete?)");
  EXPECT_EQ(edited("llama-mha", {},
                   [](json& h) {
                     h["model.layers.0.mlp.up_proj.weight"]["shape"] = {32, 36};
                   }),
            "MODEL: tensor model.layers.0.mlp.up_proj.weight has shape [32, 36]; the config of this llama "
            "model asks "
            "for [36, 32]");
  EXPECT_EQ(edited("llama-mha", {},
                   [](json& h) {
                     h["model.norm.weight"]["shape"] = {4, 8};
                   }),
            "MODEL: tensor model.norm.weight has shape [4, 8]; the config of this llama model asks for [32]");
  EXPECT_EQ(
      edited("mixtral", {},
             [](json& h) {
               const std::string name = "model.layers.0.block_sparse_moe.experts.5.w3.weight";
               h["other"] = h[name];
               h.erase(name);
             }),
      "MODEL: tensor model.layers.0.block_sparse_moe.experts.5.w3.weight is missing; a mixtral model needs "
      "it "
      "(is a file or a shard incomplete?)");
  EXPECT_EQ(edited("gpt2", {},
                   [](json& h) {
                     h["h.0.attn.c_attn.weight"]["shape"] = {96, 32};
                   }),
            "MODEL: tensor h.0.attn.c_attn.weight has shape [96, 32]; the config of this gpt2 model asks for "
            "[32, 96]");
  EXPECT_EQ(with("phi3", "num_key_value_heads", 2),
            "MODEL: tensor model.layers.0.self_attn.qkv_proj.weight has shape [96, 32]; the config of this "
            "phi3 model "
            "asks for [64, 32]");
  EXPECT_EQ(
      with("llama-mha", "vocab_size", 65),
      "MODEL: tensor model.embed_tokens.weight has shape [64, 32]; the config of this llama model asks for "
      "[65, 32]");
}

TEST(OpenModel, SaysWhichArchitecturesRun) {
  const std::string known =
      "cairn runs LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, "
      "Gemma2ForCausalLM, "
      "Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Phi3ForCausalLM, GPT2LMHeadModel, OPTForCausalLM, "
      "MixtralForCausalLM, Qwen2MoeForCausalLM, Qwen3MoeForCausalLM, OlmoeForCausalLM, "
      "BertModel, BertForMaskedLM, RobertaModel, RobertaForMaskedLM, XLMRobertaModel, XLMRobertaForMaskedLM, "
      "CamembertModel, CamembertForMaskedLM, DistilBertModel, DistilBertForMaskedLM, ModernBertModel, "
      "ModernBertForMaskedLM";
  EXPECT_EQ(with("llama-mha", "architectures", {"MambaForCausalLM"}),
            "MODEL/config.json: the architecture 'MambaForCausalLM' is not supported; " + known);
  EXPECT_EQ(without("llama-mha", "architectures"),
            "MODEL/config.json: the field architectures is missing or empty; it must name the model class");
}

TEST(OpenModel, RefusesConfigsThatMakeNoSense) {
  EXPECT_EQ(without("llama-mha", "hidden_size"), "MODEL/config.json: the field 'hidden_size' is missing");
  EXPECT_EQ(with("llama-mha", "num_hidden_layers", 0),
            "MODEL/config.json: 'num_hidden_layers' is 0; it must lie between 1 and 4096");
  EXPECT_EQ(with("llama-mha", "num_hidden_layers", "2"),
            "MODEL/config.json: 'num_hidden_layers' is \"2\"; it must be an integer");
  EXPECT_EQ(with("llama-mha", "num_key_value_heads", 3),
            "MODEL/config.json: num_attention_heads 4 is not a multiple of num_key_value_heads 3");
  EXPECT_EQ(with("llama-mha", "num_attention_heads", 5),
            "MODEL/config.json: hidden_size 32 is not a multiple of num_attention_heads 5, and there is no "
            "head_dim");
  EXPECT_EQ(with("gpt2", "n_head", 5), "MODEL/config.json: n_embd 32 is not a multiple of n_head 5");
  EXPECT_EQ(with("opt", "num_attention_heads", 5),
            "MODEL/config.json: hidden_size 32 is not a multiple of num_attention_heads 5");
  EXPECT_EQ(with("mixtral", "num_experts_per_tok", 9),
            "MODEL/config.json: num_experts_per_tok is 9, but num_local_experts is 8");
  EXPECT_EQ(
      with("llama-yarn-head-dim", "head_dim", 15),
      "MODEL/config.json: rope scaling: 15 rotary dimensions, but the number must be positive and even");
  EXPECT_EQ(with("gemma2", "layer_types", {"full_attention"}),
            "MODEL/config.json: layer_types names 1 layers, num_hidden_layers is 3");
  EXPECT_EQ(with("gemma2", "sliding_window", nullptr),
            "MODEL/config.json: layer 0 has sliding attention, but there is no sliding_window");
  EXPECT_EQ(with("olmoe", "clip_qkv", 0),
            "MODEL/config.json: clip_qkv is 0; it must be positive, or null for no clipping");
}

TEST(OpenModel, RefusesOptionsItDoesNotHave) {
  EXPECT_EQ(with("llama-mha", "hidden_act", "xielu"),
            "MODEL/config.json: hidden_act is 'xielu', an activation cairn does not know");
  EXPECT_EQ(with("gpt2", "activation_function", "tanhshrink"),
            "MODEL/config.json: activation_function is 'tanhshrink', an activation cairn does not know");
  EXPECT_EQ(
      with("llama-mha", "rope_scaling", {{"rope_type", "spiral"}, {"factor", 2.0}}),
      "MODEL/config.json: rope_type is 'spiral'; cairn knows default, linear, dynamic, yarn, llama3 and "
      "longrope");
  EXPECT_EQ(with("llama-mha", "rope_scaling", {{"rope_type", "linear"}}),
            "MODEL/config.json: rope scaling: factor is missing, and linear scaling needs it");
  EXPECT_EQ(with("llama-mha", "partial_rotary_factor", 0.5),
            "MODEL/config.json: partial_rotary_factor is 0.5, but models of this family turn whole heads");
  EXPECT_EQ(edited("phi3-longrope", [](json& c) { c["rope_scaling"]["long_factor"].push_back(1.0); }),
            "MODEL/config.json: rope scaling: long_factor has 4 numbers, but 6 rotary dimensions need 3");
  EXPECT_EQ(with("gpt2", "add_cross_attention", true),
            "MODEL/config.json: add_cross_attention is true, an option cairn does not have");
  EXPECT_EQ(with("gemma2", "use_bidirectional_attention", true),
            "MODEL/config.json: use_bidirectional_attention is true, an option cairn does not have");
  EXPECT_EQ(with("gemma3", "attn_logit_softcapping", 50.0),
            "MODEL/config.json: attn_logit_softcapping is 50; Gemma 3 has none");
  EXPECT_EQ(with("qwen2", "layer_types", {"full_attention", "chunked_attention"}),
            "MODEL/config.json: layer_types[1] is 'chunked_attention'; cairn knows full_attention and "
            "sliding_attention");
  EXPECT_EQ(
      with("gemma3", "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}}),
      "MODEL/config.json: rope_parameters has no full_attention; Gemma 3 needs one for each layer type");
}

// A golden GGUF file with one text replaced by another of the same length.
std::string patched(const std::string& name, const std::string& from, const std::string& to) {
  const TemporaryFolder folder;
  std::string bytes = read(testing::goldens_folder() / name);
  const auto at = bytes.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  EXPECT_EQ(from.size(), to.size());
  bytes.replace(at, to.size(), to);
  return outcome(folder.write("model.gguf", bytes), folder.path());
}

TEST(OpenModel, NamesGgufKeysAndTensors) {
  EXPECT_EQ(
      patched("qwen2.gguf", "blk.1.attn_k.weight", "blk.1.attn_x.weight"),
      "MODEL/model.gguf: tensor blk.1.attn_k.weight is missing; a qwen2 model needs it (is a file or a shard "
      "incomplete?)");
  EXPECT_EQ(patched("gemma2.gguf", "blk.2.post_ffw_norm", "blk.2.post_xxx_norm"),
            "MODEL/model.gguf: tensor blk.2.post_ffw_norm.weight is missing; a gemma2 model needs it (is a "
            "file or a "
            "shard incomplete?)");
  EXPECT_EQ(patched("qwen2-moe.gguf", "blk.0.ffn_up_exps", "blk.0.ffn_xx_exps"),
            "MODEL/model.gguf: tensor blk.0.ffn_up_exps.weight is missing; a qwen2_moe model needs it (is a "
            "file or a "
            "shard incomplete?)");
  EXPECT_EQ(patched("llama-linear-bias.gguf", "rope.scaling.type\x08\0\0\0\x06\0\0\0\0\0\0\0linear"s,
                    "rope.scaling.type\x08\0\0\0\x06\0\0\0\0\0\0\0spiral"s),
            "MODEL/model.gguf: rope_type is 'spiral'; cairn knows default, linear, dynamic, yarn, llama3 and "
            "longrope");
  EXPECT_EQ(
      patched("qwen2.gguf", "\x05\0\0\0\0\0\0\0qwen2"s, "\x05\0\0\0\0\0\0\0qwenX"s),
      "MODEL/model.gguf: the architecture 'qwenX' is not supported; cairn runs llama, qwen2, qwen3, gemma2, "
      "gemma3, phi3, gpt2, qwen3moe, qwen2moe, olmoe");
}

TEST(OpenModel, CountsWhatItOpened) {
  const Model model = open_model(testing::goldens_folder() / "gemma3-multimodal");
  EXPECT_EQ(model.family, "gemma3");
  EXPECT_EQ(model.architecture, "Gemma3ForConditionalGeneration");
  EXPECT_EQ(model.context_length, 256);
  EXPECT_EQ(model.layers, 2);
  EXPECT_EQ(model.hidden_size, 32);
  EXPECT_EQ(model.vocabulary_size, 64);
}

}  // namespace
}  // namespace cairn::models
