"""A GGUF file of a Llama's shape whose weights are a hole in the file: zeros that take no room."""

import os
import struct

from program import gguf_pair, gguf_tensor

# Number in the file, elements per block, bytes per block.
KINDS = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144),
         "q6_k": (14, 256, 210), "bf16": (30, 1, 2)}


def write_llama(path, kind="bf16", layers=1, dim=4096, inner=14336, heads=32, kv_heads=8, vocabulary=256, mixed=None):
    """mixed: the kind of the values' and the second feed-forward matrix, as in k-quant mixtures."""
    mixed = mixed or kind
    kv_dim = dim // heads * kv_heads
    tensors, offset = [], 0

    def add(name, dims, of):
        nonlocal offset
        number, elements, size = KINDS[of]
        count = 1
        for d in dims:
            count *= d
        tensors.append((name, dims, number, offset))
        offset += (count // elements * size + 31) // 32 * 32

    add("token_embd.weight", (dim, vocabulary), kind)
    for i in range(layers):
        b = f"blk.{i}."
        add(b + "attn_norm.weight", (dim,), "f32")
        add(b + "attn_q.weight", (dim, dim), kind)
        add(b + "attn_k.weight", (dim, kv_dim), kind)
        add(b + "attn_v.weight", (dim, kv_dim), mixed)
        add(b + "attn_output.weight", (dim, dim), kind)
        add(b + "ffn_norm.weight", (dim,), "f32")
        add(b + "ffn_gate.weight", (dim, inner), kind)
        add(b + "ffn_up.weight", (dim, inner), kind)
        add(b + "ffn_down.weight", (inner, dim), mixed)
    add("output_norm.weight", (dim,), "f32")
    add("output.weight", (dim, vocabulary), mixed)
    pairs = [("general.architecture", "llama"), ("llama.block_count", layers), ("llama.context_length", 4096),
             ("llama.embedding_length", dim), ("llama.feed_forward_length", inner),
             ("llama.attention.head_count", heads), ("llama.attention.head_count_kv", kv_heads),
             ("llama.attention.layer_norm_rms_epsilon", 1e-5), ("llama.rope.freq_base", 500000.0),
             ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.tokens", [f"t{i}" for i in range(vocabulary)]),
             ("tokenizer.ggml.merges", [])]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    header += b"".join(gguf_pair(*p) for p in pairs) + b"".join(gguf_tensor(*t) for t in tensors)
    header += bytes(-len(header) % 32)
    with open(path, "wb") as file:
        file.write(header)
        os.truncate(file.fileno(), len(header) + offset)
    return path
