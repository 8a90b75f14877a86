"""GGUF files of tiny models with the names, keys and layouts that llama.cpp's converter produces.

Used by make_family_goldens.py. State dictionaries are those of transformers 5: experts stacked in one tensor.
"""
import math
import re

import gguf
import numpy as np

ARCHITECTURE = {"llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
                "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3", "gpt2": "gpt2", "qwen3_moe": "qwen3moe",
                "qwen2_moe": "qwen2moe", "olmoe": "olmoe"}

# (pattern inside a layer, GGUF name); the first match counts.
LAYER = [
    ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.qkv_proj", "attn_qkv"), ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"), ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"), ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.experts.down_proj", "ffn_down_exps"), ("mlp.gate.", "ffn_gate_inp"),
    ("mlp.gate_up_proj", "ffn_up"), ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"), ("input_layernorm", "attn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"), ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_attention_layernorm", "ffn_norm"),  # Gemma: post_attention_norm
    ("ln_1", "attn_norm"), ("ln_2", "ffn_norm"), ("attn.c_attn", "attn_qkv"), ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down"),
]
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight", "transformer.wte.weight": "token_embd.weight",
         "transformer.wpe.weight": "position_embd.weight", "transformer.ln_f.weight": "output_norm.weight",
         "transformer.ln_f.bias": "output_norm.bias"}


def interleave(weight, heads):
    """llama.cpp rotates neighbouring rows of Llama's q and k: pair (i, i + d/2) of a head becomes (2i, 2i + 1)."""
    return (weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
            .swapaxes(1, 2).reshape(weight.shape))


def tensors(model_type, config, state):
    gemma = model_type.startswith("gemma")
    for name, value in state.items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if gemma and name.endswith("norm.weight"):
            value = value + np.float32(1)
        if name in OUTER:
            yield OUTER[name], value
            continue
        layer = re.search(r"\.(\d+)\.", name).group(1)
        if name.endswith("experts.gate_up_proj"):
            gate, up = np.split(value, 2, axis=1)
            yield f"blk.{layer}.ffn_gate_exps.weight", gate
            yield f"blk.{layer}.ffn_up_exps.weight", up
            continue
        target = next(g for pattern, g in LAYER if pattern in name)
        if gemma and "post_attention_layernorm" in name:
            target = "post_attention_norm"
        if ARCHITECTURE[model_type] == "llama" and target in ("attn_q", "attn_k"):
            heads = config["num_attention_heads" if target == "attn_q" else "num_key_value_heads"]
            value = interleave(value, heads)
        if model_type == "gpt2" and value.ndim == 2:
            value = value.T
        if target == "ffn_gate_inp_shexp":
            value = value.reshape(-1)
        yield f"blk.{layer}.{target}.{'bias' if name.endswith('bias') else 'weight'}", value


def llama3_divisors(rope, dim):
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    result = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if wavelength < original / rope["high_freq_factor"]:
            result.append(1.0)
        elif wavelength > original / rope["low_freq_factor"]:
            result.append(factor)
        else:
            smooth = (original / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"])
            result.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(result, dtype=np.float32)


def rope_keys(w, model_type, config, head_dim):
    rope = config["rope_parameters"]
    if model_type == "gemma3_text":
        w.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    if model_type != "gemma2":  # its converter leaves the default
        w.add_rope_freq_base(rope["rope_theta"])
    kind = rope["rope_type"]
    dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    if ARCHITECTURE[model_type] in ("llama", "phi3"):
        w.add_rope_dimension_count(dim)
    if model_type == "phi3":
        w.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif kind == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_divisors(rope, dim))
    elif kind == "longrope":
        original = config["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        w.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32))
        w.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32))
    elif kind != "default":
        raise ValueError(f"no GGUF form of {kind} scaling")


def write(path, model_type, config, config_json, state):
    architecture = ARCHITECTURE[model_type]
    w = gguf.GGUFWriter(path, architecture)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_tokenizer_model("no_vocab")
    w.add_vocab_size(config["vocab_size"])
    if model_type == "gpt2":
        w.add_block_count(config["n_layer"])
        w.add_context_length(config["n_positions"])
        w.add_embedding_length(config["n_embd"])
        w.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
        w.add_head_count(config["n_head"])
        w.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        w.add_block_count(config["num_hidden_layers"])
        w.add_context_length(config["max_position_embeddings"])
        w.add_embedding_length(config["hidden_size"])
        w.add_feed_forward_length(config["intermediate_size"])
        w.add_head_count(heads)
        w.add_head_count_kv(config["num_key_value_heads"])
        w.add_layer_norm_rms_eps(config["rms_norm_eps"])
        if config_json.get("head_dim"):
            w.add_key_length(head_dim)
            w.add_value_length(head_dim)
        rope_keys(w, model_type, config, head_dim)
    if model_type == "gemma2":
        w.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        w.add_final_logit_softcapping(config["final_logit_softcapping"])
    if model_type in ("gemma2", "gemma3_text"):
        w.add_sliding_window(config["sliding_window"])
    if model_type == "phi3":
        w.add_sliding_window(config["sliding_window"] or 0)
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        w.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in config:
        w.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    for name, value in tensors(model_type, config, state):
        w.add_tensor(name, np.ascontiguousarray(value, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
