#!/usr/bin/env python3
"""Writes a folder of the Llama-3.1-8B shape with random weights in a form that quantisers publish, for benches.

usage: bench/write_quantized_model.py FOLDER --form fp8-block|fp8-channel|gptq|awq|packed|bf16 [--layers 32]

Needs torch and safetensors; takes seconds where torch has a GPU. There is no tokenizer: `cairn bench` needs none.
Weights have a standard deviation of 0.02.
"""
import argparse
import json
import pathlib

import safetensors.torch
import torch

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 4096, 14336, 32, 8, 128, 128256
LAYERS_PER_FILE = 4
SCALE = 0.02
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GROUP = 128


def random_words(*shape):
    return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int32, device=DEVICE)


def e4m3(rows, cols):
    return (torch.randn(rows, cols, device=DEVICE) * 64).clamp(-448, 448).to(torch.float8_e4m3fn)


def scales(*shape, unit, dtype):
    return (unit * (0.9 + 0.2 * torch.rand(shape, device=DEVICE))).to(dtype)


def linear(form, rows, cols):
    """Suffix of the name -> tensor. 4-bit codes are uniform: 0.02 is 4.6 steps of the scale."""
    step = SCALE / 4.6
    if form == "bf16":
        return {"weight": (torch.randn(rows, cols, device=DEVICE) * SCALE).to(torch.bfloat16)}
    if form == "fp8-block":
        blocks = (-(-rows // 128), -(-cols // 128))
        return {"weight": e4m3(rows, cols), "weight_scale_inv": scales(*blocks, unit=SCALE / 64, dtype=torch.float32)}
    if form == "fp8-channel":
        return {"weight": e4m3(rows, cols), "weight_scale": scales(rows, 1, unit=SCALE / 64, dtype=torch.bfloat16)}
    if form == "packed":
        return {"weight_packed": random_words(rows, cols // 8),
                "weight_scale": scales(rows, cols // GROUP, unit=step, dtype=torch.bfloat16),
                "weight_shape": torch.tensor([rows, cols])}
    zeros = torch.full((cols // GROUP, rows // 8), 0x77777777 if form == "gptq" else -0x77777778, dtype=torch.int32,
                       device=DEVICE)  # 8 in every nibble; GPTQ stores one less
    tensors = {"qzeros": zeros, "scales": scales(cols // GROUP, rows, unit=step, dtype=torch.float16)}
    if form == "gptq":
        return {"qweight": random_words(cols // 8, rows), **tensors,
                "g_idx": torch.arange(cols, dtype=torch.int32) // GROUP}
    return {"qweight": random_words(cols, rows // 8), **tensors}


def quantization(form):
    def compressed(kind, **weights):
        return {"quant_method": "compressed-tensors", "format": kind, "quantization_status": "compressed",
                "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}

    return {"bf16": None,
            "fp8-block": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128],
                          "activation_scheme": "dynamic"},
            "fp8-channel": compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
            "packed": compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=GROUP),
            "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True},
            "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}}[form]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--form", required=True, choices=["fp8-block", "fp8-channel", "gptq", "awq", "packed", "bf16"])
    parser.add_argument("--layers", type=int, default=32)
    options = parser.parse_args()
    torch.manual_seed(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
              "intermediate_size": INTERMEDIATE, "num_hidden_layers": options.layers, "num_attention_heads": HEADS,
              "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5,
              "rope_theta": 500000.0, "max_position_embeddings": 131072, "tie_word_embeddings": False,
              "hidden_act": "silu", "torch_dtype": "bfloat16"}
    if quantization(options.form):
        config["quantization_config"] = quantization(options.form)
    (options.folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    where, total = {}, 0

    def save(name, tensors):
        nonlocal total
        safetensors.torch.save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, options.folder / name)
        where.update({n: name for n in tensors})
        total += sum(t.numel() * t.element_size() for t in tensors.values())

    norm = torch.ones(HIDDEN, dtype=torch.bfloat16)
    save("model-ends.safetensors", {"model.embed_tokens.weight": linear("bf16", VOCABULARY, HIDDEN)["weight"],
                                    "lm_head.weight": linear("bf16", VOCABULARY, HIDDEN)["weight"],
                                    "model.norm.weight": norm})
    modules = {"self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
               "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
               "mlp.gate_proj": (INTERMEDIATE, HIDDEN), "mlp.up_proj": (INTERMEDIATE, HIDDEN),
               "mlp.down_proj": (HIDDEN, INTERMEDIATE)}
    for first in range(0, options.layers, LAYERS_PER_FILE):
        tensors = {}
        for layer in range(first, min(first + LAYERS_PER_FILE, options.layers)):
            prefix = f"model.layers.{layer}."
            tensors[prefix + "input_layernorm.weight"] = norm.clone()
            tensors[prefix + "post_attention_layernorm.weight"] = norm.clone()
            for module, (rows, cols) in modules.items():
                for suffix, tensor in linear(options.form, rows, cols).items():
                    tensors[f"{prefix}{module}.{suffix}"] = tensor
        save(f"model-{first:03}.safetensors", tensors)
    (options.folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": where}) + "\n")
    print(f"{options.folder}: {options.form}, {options.layers} layers, {total / 1e9:.2f} GB")


main()
