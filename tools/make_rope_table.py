#!/usr/bin/env python3
"""Writes src/program/rope_scaling_table.inc: rotary frequencies as Hugging Face transformers computes them.

Needs torch and transformers: python tools/make_rope_table.py
"""
import pathlib

import torch
import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

KIND = {"default": "none", "linear": "linear", "dynamic": "dynamic_ntk", "yarn": "yarn", "llama3": "llama3",
        "longrope": "longrope"}
LONG = {"short_factor": [1.0, 1.02, 1.03, 1.1, 1.3, 1.7, 2.1, 2.9],
        "long_factor": [1.05, 1.2, 2.4, 4.5, 9.0, 17.5, 31.25, 60.0]}

# (name, rotary dimensions, theta, max_position_embeddings, sequence length, the rope_scaling of config.json)
CASES = [
    ("plain", 16, 10000.0, 4096, 10, {"rope_type": "default"}),
    ("plain, odd number of pairs, large theta", 10, 1000000.0, 4096, 10, {"rope_type": "default"}),
    ("linear", 16, 10000.0, 4096, 10, {"rope_type": "linear", "factor": 4.0}),
    ("dynamic within the model's length", 16, 10000.0, 64, 64, {"rope_type": "dynamic", "factor": 2.0}),
    ("dynamic beyond it", 16, 10000.0, 64, 65, {"rope_type": "dynamic", "factor": 2.0}),
    ("dynamic far beyond it", 16, 10000.0, 64, 500, {"rope_type": "dynamic", "factor": 3.5}),
    ("yarn", 16, 10000.0, 4096, 10,
     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}),
    ("yarn as Qwen2.5 publishes it", 128, 1000000.0, 131072, 10,
     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    ("yarn, factor from the lengths", 16, 10000.0, 4096, 10,
     {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 256}),
    ("yarn, ramp not truncated", 32, 150000.0, 131072, 10,
     {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 32.0,
      "beta_slow": 1.0, "truncate": False}),
    ("yarn, both mscales", 64, 10000.0, 163840, 10,
     {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0,
      "mscale_all_dim": 0.707}),
    ("yarn, attention factor given", 16, 10000.0, 4096, 10,
     {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "attention_factor": 1.5,
      "beta_fast": 8.0, "beta_slow": 2.0}),
    ("yarn, ramp of no width", 16, 10000.0, 4096, 10,
     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6}),
    ("llama3", 64, 500000.0, 131072, 10,
     {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192}),
    ("llama3, short", 16, 10000.0, 256, 10,
     {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 64}),
    ("longrope, short list", 16, 10000.0, 4096, 256,
     {"rope_type": "longrope", "original_max_position_embeddings": 256, "factor": None, **LONG}),
    ("longrope, long list", 16, 10000.0, 4096, 257,
     {"rope_type": "longrope", "original_max_position_embeddings": 256, "factor": None, **LONG}),
    ("longrope, factor given", 16, 10000.0, 4096, 300,
     {"rope_type": "longrope", "original_max_position_embeddings": 256, "factor": 3.0, **LONG}),
    ("longrope, attention factor given", 16, 10000.0, 4096, 300,
     {"rope_type": "longrope", "original_max_position_embeddings": 256, "factor": 3.0, "attention_factor": 1.25,
      **LONG}),
    ("longrope, nothing to stretch", 16, 10000.0, 256, 100,
     {"rope_type": "longrope", "original_max_position_embeddings": 256, "factor": None, **LONG}),
]


def reference(dim, theta, max_position, length, scaling):
    config = LlamaConfig(hidden_size=2 * dim, num_attention_heads=2, max_position_embeddings=max_position,
                         rope_parameters={"rope_theta": theta, **scaling})
    if scaling["rope_type"] == "default":
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
        return LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    return ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len=length)


def cpp(dim, theta, max_position, length, scaling, name):
    fields = [f"s.kind = RopeScaling::Kind::{KIND[scaling['rope_type']]};"]
    for key, value in scaling.items():
        if key == "rope_type" or value is None:
            continue
        field = {"original_max_position_embeddings": "original_max_position"}.get(key, key)
        if isinstance(value, list):
            value = "{" + ", ".join(f"{v!r}f" for v in value) + "}"
        elif isinstance(value, bool):
            value = str(value).lower()
        fields.append(f"s.{field} = {value};")
    frequencies, attention = reference(dim, theta, max_position, length, dict(scaling))
    numbers = ", ".join(f"{float(f):.9g}" for f in frequencies)
    return (f'{{"{name}", [] {{ RopeScaling s; {" ".join(fields)} return s; }}(), {theta!r}, {dim}, {length}, '
            f"{max_position}, {float(attention):.9g},\n {{{numbers}}}}},\n")


def main():
    out = pathlib.Path(__file__).parent.parent / "src/program/rope_scaling_table.inc"
    text = f"// Written by tools/make_rope_table.py with transformers {transformers.__version__}; not edited by hand.\n"
    text += "// name, scaling, theta, rotary_dim, sequence_length, max_position, attention_factor, inverse_frequencies\n"
    for name, *case in CASES:
        text += cpp(*case, name)
    out.write_text(text)


main()
